/**
 * Every shape of image that boots, booted by the real command: the guest says a word of this run that only the right
 * part of the image knows. Two guests run at a time.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootshim } from "../support/bootshim_command.ts";
import { type GuestPartKind, makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type Shape, shapes } from "../support/image_shapes.ts";
import { randomWord } from "../support/random_word.ts";
import { type ShapeParts, writeShape } from "../support/shape_builder.ts";

const words = {
  disk: randomWord(),
  initramfs: randomWord(),
  uki: randomWord(),
  iso: randomWord(),
  squashfs: randomWord(),
  fileSystem: randomWord(),
  cmdline: randomWord(),
};

/** These disks boot by UEFI, which takes its time; the others by BIOS. */
const UEFI_DISKS = /^(shape 01|edition B|draft)/;

let work: string;
let root: string;
let parts: ShapeParts;
let uefiDisk: Uint8Array;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-shape-guests-"));
  root = join(work, "root");
  const part = async (kind: GuestPartKind, word?: string) =>
    new Uint8Array(await readFile(await makeGuestPart(kind, word === undefined ? {} : { word })));
  parts = {
    disk: await part("disk-bios", words.disk),
    kernel: await part("kernel"),
    initramfs: await part("initramfs", words.initramfs),
    squashfs: await part("rootfs-squashfs", words.squashfs),
    fileSystem: await part("rootfs-ext4", words.fileSystem),
    uki: await part("uki", words.uki),
    iso: await part("iso", words.iso),
    cmdline: `console=ttyS0 quiet panic=-1 shim.word=${words.cmdline}`,
  };
  uefiDisk = await part("disk-uefi", words.disk);
});

afterAll(async () => {
  await rm(work, { recursive: true, force: true });
});

/** What the guest of a shape must see of its machine and of the image. */
function expectedReport({ name, boot, speaker }: Shape, commandLine: string | undefined) {
  const isBareRoot = name.startsWith("bare root");
  const hasSquashfs = name.startsWith("shape 06");
  const firmware = boot === "kernel" ? "none" : boot === "disk" && !UEFI_DISKS.test(name) ? "bios" : "uefi";
  const disk = { serial: "machineboot", readOnly: hasSquashfs };
  return {
    word: words[speaker],
    firmware,
    disks: boot === "disk" || isBareRoot || hasSquashfs ? [disk] : [],
    isoWord: boot === "iso" ? words.iso : null,
    rootWord: isBareRoot ? words.fileSystem : hasSquashfs ? words.squashfs : null,
    // Nobody but us gives a kernel its command line; another's own is inside the disk.
    shimWord: boot === "kernel" && commandLine?.includes("shim.word") ? words.cmdline : null,
  };
}

describe.concurrent("run boots", () => {
  it.each(shapes)("$name", async (shape) => {
    const { name, boot, build } = shape;
    const built = build(UEFI_DISKS.test(name) ? { ...parts, disk: uefiDisk } : parts);
    const { commandLine } = built.expected;
    const layout = join(work, randomWord());
    // Images without a command line leave it to whoever boots them.
    const silent = boot === "kernel" && commandLine === undefined
      ? ["--cmdline", `console=ttyS0 quiet panic=-1${name.startsWith("shape 06") ? " root=/dev/vda ro" : ""}`]
      : [];
    await writeShape(layout, built);
    const reference = name.startsWith("shape 15")
      ? `oci:${layout}@${built.root.descriptor.digest}`
      : `oci:${layout}:${built.tag}`;
    const ended = await bootshim(
      ["run", reference, "--memory", "512MiB", "--timeout", "200", "--quiet", ...silent],
      { root },
    );
    expect([ended.stderr, ended.exitCode]).toEqual(["", 0]);
    expect(parseGuestReport(ended.stdout)).toMatchObject(expectedReport(shape, commandLine));
    await rm(layout, { recursive: true });
  }, 240_000);
});
