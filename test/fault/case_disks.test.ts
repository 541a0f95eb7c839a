/** Cases of hostile disks and boot files, from image to machine: the code, again the second time, and what is left. */
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../src/agent/agent_context.ts";
import { prepare } from "../../src/agent/prepare.ts";
import type { Role } from "../../src/boot/prepared_boot.ts";
import type { ErrorCode, ShimError } from "../../src/errors.ts";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import { openAgent } from "../support/agent_kit.ts";
import { blobOf } from "../support/blobs.ts";
import { arm64Image, bytesWith, bzImage, efiProgram, gptDisk } from "../support/disk_bytes.ts";
import { failureOf } from "../support/failures.ts";
import { writeForeignLayout } from "../support/foreign_layout.ts";
import { HOSTILE_DISKS } from "../support/hostile_disks.ts";
import { manifestJsonOf, randomDigest, textDocument } from "../support/image_documents.ts";
import { isoImage } from "../support/iso_bytes.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { treeOf } from "../support/pull_kit.ts";
import { qcow2File, u64 } from "../support/qcow2_bytes.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const MIB = 1024 * 1024;
const IMAGE_CONFIG = "application/vnd.ironcore.image.config.v1+json";

type Layers = Readonly<Partial<Record<Role, Uint8Array>>>;

/** A cache with a machine in it, beside which nothing may change. */
async function openScene(): Promise<AgentContext> {
  const root = join(temporary(), "root");
  await mkdir(root, { mode: 0o700 });
  const context = await openAgent(root);
  const reference = await publishRootfs(join(temporary(), "sound"), randomRootfs(300 * 1024));
  await prepare(context, prepareWish(reference, { id: "vm-sound" }));
  return context;
}

/** Asks for a machine twice, and looks at what that left. */
async function refuse(context: AgentContext, name: string, layers: Layers): Promise<ShimError> {
  const { rootDirectory } = context;
  const { reference } = await publishLayout(join(temporary(), name), [osImage(layers)]);
  const before = await treeOf(rootDirectory);
  const wish = prepareWish(reference, { id: "vm-refused" });
  const failure = await failureOf(prepare(context, wish));
  const after = await treeOf(rootDirectory);
  // The image itself may be there by now, and what was found of it; nothing was begun, made of it or changed.
  const isFound = (line: string) =>
    /^(?:images|references|verdicts)(?:\/| )|^derived(?:\/sha256)? /.test(line);
  expect(before.filter((line) => !after.includes(line) && !isFound(line))).toEqual([]);
  expect(after.filter((line) => !before.includes(line) && !isFound(line))).toEqual([]);
  expect(layoutProblems(rootDirectory)).toEqual([]);
  expect((await failureOf(prepare(context, wish))).code).toBe(failure.code);
  expect(await treeOf(rootDirectory)).toEqual(after);
  return failure;
}

const byCase = Map.groupBy(HOSTILE_DISKS, ([name]) => /^HD[0-9]+/.exec(name)?.[0] ?? "HD07");

describe("a machine of a hostile disk", () => {
  it.each([...byCase])("%s is refused by name, and nothing is made of it", async (id, disks) => {
    const context = await openScene();
    for (const [i, [name, made, code]] of disks.entries()) {
      const rootfs = made instanceof Uint8Array ? made : qcow2File(made);
      const layers = { kernel: randomKernel(), rootfs };
      expect([name, (await refuse(context, `${id}-${i}`, layers)).code]).toEqual([name, code]);
    }
    expect(await readdir(join(context.rootDirectory, "machines"))).toEqual(["vm-sound"]);
    expect(machineProblems(context.rootDirectory)).toEqual([]);
  });

  it("HD12 with tables that lead astray: FORMAT_UNSAFE when it is to be copied, and no disk is left", async () => {
    const context = await openScene();
    const disk = randomRootfs(300 * 1024);
    const changes = [1n << 63n | 0x10200n, 1n << 62n | 0x50000n];
    for (const [i, entry] of changes.entries()) {
      // The fourth entry of the only L2 table, behind header, refcounts and L1 table.
      const rootfs = qcow2File({ disk, patch: { [4 * 65536 + 24]: u64(entry) } });
      const layers = { kernel: randomKernel(), rootfs };
      const { reference } = await publishLayout(join(temporary(), `tables-${i}`), [osImage(layers)]);
      const wish = prepareWish(reference, { id: "vm-refused", diskFormat: "raw", clone: "copy" });
      expect((await failureOf(prepare(context, wish))).code).toBe("FORMAT_UNSAFE");
      expect(await readdir(join(context.rootDirectory, "machines"))).toEqual(["vm-sound"]);
      expect(layoutProblems(context.rootDirectory)).toEqual([]);
    }
  });
});

const LINUX = { name: ".linux", bytes: bzImage() };
const uki = (...sections: NonNullable<Parameters<typeof efiProgram>[1]>["sections"] & object) =>
  efiProgram(0x8664, { sections: [LINUX, ...sections] });

const beside = (kernel: Uint8Array): Layers => ({ kernel, initramfs: randomInitramfs() });

const BOOT_FILES: readonly (readonly [name: string, layers: Layers, code: ErrorCode])[] = [
  ["HD16 an ISO that is zeros", { iso: new Uint8Array(MIB) }, "FORMAT_MISMATCH"],
  ["HD16 an ISO that is a disk", { iso: gptDisk([]) }, "FORMAT_MISMATCH"],
  ["HD16 an ISO that begins as a qcow2", { iso: isoImage({ patch: { 0: "QFI\xfb" } }) }, "FORMAT_MISMATCH"],
  ["HD17 a kernel that is empty", beside(new Uint8Array()), "FORMAT_MISMATCH"],
  ["HD17 a kernel that is text", beside(bytesWith(8192, { 0: "#!ipxe\n" })), "FORMAT_MISMATCH"],
  ["HD17 a kernel of a bad setup header", beside(bzImage({ protocol: 0x100 })), "FORMAT_MISMATCH"],
  ["HD17 a kernel of 32 bits", beside(bzImage({ is64Bit: false })), "FORMAT_MISMATCH"],
  ["HD17 a kernel for another architecture", beside(arm64Image()), "FORMAT_MISMATCH"],
  ["HD17 a kernel that is cut off", beside(bzImage({ loadedBytes: 8192 })), "FORMAT_MISMATCH"],
  ["HD17 a kernel that is a bomb", beside(gzipSync(new Uint8Array(64 * MIB))), "FORMAT_MISMATCH"],
  [
    "HD19 a UKI without kernel",
    { uki: efiProgram(0x8664, { sections: [{ name: ".initrd", bytes: "x" }] }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI of two command lines",
    { uki: uki({ name: ".cmdline", bytes: "a" }, { name: ".cmdline", bytes: "b" }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI of two command lines in the kernel's place",
    { kernel: uki({ name: ".cmdline", bytes: "a" }, { name: ".cmdline", bytes: "b" }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI of 65,535 sections",
    { uki: efiProgram(0x8664, { sections: [LINUX], sectionCount: 65_535 }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI whose table goes past its end",
    { uki: efiProgram(0x8664, { headerAt: 7900, sectionCount: 96 }).slice(0, 8192) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI with a section past its end",
    { uki: uki({ name: ".cmdline", bytes: "a", fileBytes: 2 ** 30 }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI whose sections overlap",
    { uki: uki({ name: ".cmdline", bytes: "a", fileOffset: 0x400 }) },
    "FORMAT_UNSAFE",
  ],
  [
    "HD19 a UKI whose sizes wrap",
    { uki: uki({ name: ".cmdline", fileOffset: 0xfffffff0, fileBytes: 0x20 }) },
    "FORMAT_UNSAFE",
  ],
];

describe("a machine of a hostile boot file", () => {
  it.each(BOOT_FILES)("%s: nothing is made of it", async (_name, layers, code) => {
    const context = await openScene();
    const failure = await refuse(context, "refused", layers);
    // No mode of boot is left, and the file is why.
    expect(failure.code).toBe(code);
    expect(failure.message).toMatch(
      /is no (?:ISO|kernel|unified)|kernel is for arm64|kernel image, but it has two/,
    );
    expect(failure.details).toMatchObject({
      modes: [{}, {}, {}, {}],
      remedy: expect.stringContaining("anew"),
    });
    expect(await readdir(join(context.rootDirectory, "machines"))).toEqual(["vm-sound"]);
  });

  it("HD17 a kernel of 1 GiB: LIMIT_EXCEEDED before any of it is asked for, S0", async () => {
    const context = await openScene();
    const kernel = {
      mediaType: "application/vnd.ironcore.image.kernel",
      digest: randomDigest(),
      size: 2 ** 30,
    };
    const config = blobOf(new TextEncoder().encode("{}"), { mediaType: IMAGE_CONFIG });
    const manifest = textDocument(
      JSON.stringify(manifestJsonOf([kernel], { config: fromDescriptor(config.descriptor) })),
    );
    const directory = join(temporary(), "large");
    await writeForeignLayout(directory, { entries: [{ ...manifest, tag: "1" }], blobs: [config] });
    const before = await treeOf(context.rootDirectory);
    const reference = { transport: "oci", directory, tag: "1" } as const;
    const failure = await failureOf(prepare(context, prepareWish(reference, { id: "vm-refused" })));
    expect([failure.code, failure.message]).toEqual([
      "LIMIT_EXCEEDED",
      expect.stringContaining("it has 1073741824 bytes, a kernel has less than 1073741824"),
    ]);
    expect(await treeOf(context.rootDirectory)).toEqual(before);
  });

  it("HD16 a hybrid GPT on an ISO: attached as a CD only, raw and read-only", async () => {
    const context = await openScene();
    const iso = isoImage({ entries: [{ platform: 0xef }], patch: { 510: [0x55, 0xaa], 512: "EFI PART" } });
    const { reference } = await publishLayout(join(temporary(), "hybrid"), [osImage({ iso })]);
    const { boot, machine } = await prepare(context, prepareWish(reference, { id: "vm-iso" }));
    expect([boot.mode, machine?.disks]).toEqual(["iso", []]);
    const xml = await readFile(join(context.rootDirectory, "machines/vm-iso/domain.xml"), "utf8");
    const disks = xml.match(/<disk [^]*?<\/disk>/g) ?? [];
    expect(disks).toHaveLength(1);
    expect(disks[0]).toMatch(/device="cdrom"[^]*type="raw"[^]*<readonly\/>/);
    expect(disks[0]).toContain(boot.iso);
    expect(layoutProblems(context.rootDirectory)).toEqual([]);
    expect(machineProblems(context.rootDirectory)).toEqual([]);
  });

  it.each<[string, Layers]>([
    ["HD18 an initramfs of garbage", { kernel: randomKernel(), initramfs: new Uint8Array(5000).fill(9) }],
    ["HD18 an initramfs that is a bomb", {
      kernel: randomKernel(),
      initramfs: gzipSync(new Uint8Array(64 * MIB)),
    }],
    ["HD18 a squashfs larger than its file", {
      kernel: randomKernel(),
      initramfs: randomInitramfs(),
      squashfs: bytesWith(8192, { 0: "hsqs", 28: [4, 0, 0, 0], 40: [255, 255, 255, 255, 255, 255, 255, 0] }),
    }],
  ])("%s is opaque: never unpacked, byte for byte what was published", async (_name, layers) => {
    const context = await openScene();
    const { reference } = await publishLayout(join(temporary(), "opaque"), [osImage(layers)]);
    const { layers: prepared } = await prepare(context, prepareWish(reference, null));
    const files = (await treeOf(context.rootDirectory)).map((line) => line.split(" ", 1)[0] ?? "");
    expect(files.filter((name) => /^(?:derived|ingest)\/./.test(name))).toEqual([]);
    expect(layoutProblems(context.rootDirectory)).toEqual([]);
    for (const { role, path } of prepared) {
      expect((await readFile(path)).equals(layers[role] ?? new Uint8Array())).toBe(true);
    }
    expect(prepared.map(({ role }) => role).sort()).toEqual(Object.keys(layers).sort());
  });
});
