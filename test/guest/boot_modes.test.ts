/** Every way in which an image can boot, with the real command: what each guest says is a word of this run. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { HAS_ARM64_GUESTS, makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { randomWord } from "../support/random_word.ts";

const execute = promisify(execFile);
const word = {
  kernel: randomWord(),
  root: randomWord(),
  uefi: randomWord(),
  uki: randomWord(),
  iso: randomWord(),
};

let work: string;
let root: string;

/** Builds an image of the parts in the cache, and gives its name. */
async function image(name: string, parts: Readonly<Record<string, string>>): Promise<string> {
  const reference = `127.0.0.1:1/modes/${name}:1`;
  const config = Object.entries({ arch: "amd64", ...parts }).map(([key, value]) => `${key}=${value}`).join(
    ",",
  );
  await bootshimJson(["build", "--tag", reference, "--config", config], { root });
  return reference;
}

async function boot(reference: string, ...argv: string[]) {
  const ended = await bootshim([
    "run",
    reference,
    "--memory",
    "512MiB",
    "--timeout",
    "110",
    "--quiet",
    ...argv,
  ], { root });
  expect([ended.stderr, ended.exitCode]).toEqual(["", 0]);
  return parseGuestReport(ended.stdout);
}

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-modes-"));
  root = join(work, "root");
});

afterAll(async () => {
  await rm(work, { recursive: true, force: true });
});

describe("run boots", () => {
  it("a kernel with a squashfs as root, which carries the serial machineboot and is read-only", async () => {
    const cmdline = join(work, "squashfs-cmdline");
    await writeFile(cmdline, "console=ttyS0 quiet panic=-1 root=/dev/vda ro");
    const reference = await image("squashfs", {
      kernel: await makeGuestPart("kernel"),
      initramfs: await makeGuestPart("initramfs", { word: word.kernel }),
      squashfs: await makeGuestPart("rootfs-squashfs", { word: word.root }),
      cmdline,
    });
    expect(await boot(reference)).toMatchObject({
      word: word.kernel,
      rootWord: word.root,
      disks: [{ name: "vda", serial: "machineboot", readOnly: true }],
    });
  });

  it("a UKI under UEFI", async () => {
    const reference = await image("uki", { uki: await makeGuestPart("uki", { word: word.uki }) });
    expect(await boot(reference)).toMatchObject({ word: word.uki, firmware: "uefi" });
  });

  it.each(["uefi", "bios"] as const)("an ISO under %s, as CD-ROM", async (firmware) => {
    const reference = await image("iso", { iso: await makeGuestPart("iso", { word: word.iso }) });
    expect(await boot(reference, "--firmware", firmware)).toMatchObject({
      word: word.iso,
      isoWord: word.iso,
      firmware,
      disks: [],
    });
  });

  it.skipIf(!HAS_ARM64_GUESTS).each(["disk-uefi", "uki", "iso"] as const)(
    "an arm64 %s under UEFI, emulated",
    async (kind) => {
      const arm64Word = randomWord();
      const role = kind === "disk-uefi" ? "rootfs" : kind;
      const part = await makeGuestPart(kind, { architecture: "arm64", word: arm64Word });
      const reference = await image(`arm64-${kind}`, { arch: "arm64", [role]: part });
      expect(await boot(reference, "--arch", "arm64")).toMatchObject({
        word: arm64Word,
        architecture: "arm64",
        firmware: "uefi",
        cmdline: "console=ttyAMA0 quiet panic=-1",
        isoWord: kind === "iso" ? arm64Word : null,
        disks: kind === "disk-uefi" ? [{ serial: "machineboot", readOnly: false }] : [],
      });
    },
  );

  it.each([
    ["gzip", ["-n", "--keep", "--stdout"]],
    ["zstd", ["--quiet", "--stdout"]],
  ])("a UEFI disk compressed with %s, which is unpacked once", async (program, argv) => {
    const disk = await makeGuestPart("disk-uefi", { word: word.uefi });
    const packed = join(work, `disk.${program}`);
    await execute("sh", ["-c", `${program} ${argv.join(" ")} "$0" > "$1"`, disk, packed]);
    expect(await boot(await image(program, { rootfs: packed }))).toMatchObject({
      word: word.uefi,
      firmware: "uefi",
    });
  });

  it("a UEFI disk in a qcow2 file that passes the gate, through an overlay", async () => {
    const disk = await makeGuestPart("disk-uefi", { word: word.uefi });
    const qcow2 = join(work, "disk.qcow2");
    await execute("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", disk, qcow2]);
    expect(await boot(await image("qcow2", { rootfs: qcow2 }))).toMatchObject({
      word: word.uefi,
      disks: [{ serial: "machineboot", readOnly: false }],
    });
  });
});

describe("prepare refuses", () => {
  it("a qcow2 file with a backing file: FORMAT_UNSAFE, and nothing opens what it names", async () => {
    const canary = join(work, "canary.raw");
    await writeFile(canary, new Uint8Array(2 ** 20));
    const hostile = join(work, "hostile.qcow2");
    await execute("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", canary, hostile]);
    const reference = await image("hostile", { rootfs: hostile });
    const ended = await bootshim(["prepare", reference, "--machine", "hostile", "-o", "json"], { root });
    expect([ended.exitCode, JSON.parse(ended.stderr)]).toMatchObject([65, {
      error: { code: "FORMAT_UNSAFE" },
    }]);
  });
});
