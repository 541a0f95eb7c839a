import { copyFile, mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../src/boot/byte_window.ts";
import { HEAD_BYTES } from "../../src/boot/disk_content.ts";
import { recogniseInitramfs } from "../../src/boot/initramfs_content.ts";
import type { FormatFault } from "../../src/boot/format_fault.ts";
import { recogniseIso } from "../../src/boot/iso_content.ts";
import { type KernelContent, recogniseKernel } from "../../src/boot/kernel_content.ts";
import { recogniseUki } from "../../src/boot/uki_content.ts";
import { type GuestPartKind, makeGuestPart } from "../support/guest_image.ts";
import { recogniseFile, runTool } from "../support/real_files.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const MIB = 1024 * 1024;

async function kernelIn(path: string): Promise<KernelContent> {
  const { content, readBytes } = await recogniseFile(path, recogniseKernel);
  expect(readBytes).toBeLessThanOrEqual(10 * 1024);
  return content;
}

describe("recogniseKernel on real files", () => {
  const NO_HEADER = {
    kind: "not-a-kernel",
    why: "it has no bzImage, arm64 Image or EFI/PE header",
    fault: "FORMAT_MISMATCH",
  } as const;
  const GUEST_KERNEL = {
    kind: "kernel",
    format: "bzImage",
    architecture: "amd64",
    isEfiProgram: true,
    version: expect.stringMatching(/^\d+\.\d+\.\d+\S* \(.*\) #\d+ /),
    commandLineLimitBytes: 2047,
  };

  it.each<[GuestPartKind, unknown]>([
    ["kernel", GUEST_KERNEL],
    ["uki", {
      kind: "kernel",
      format: "UKI",
      architecture: "amd64",
      isEfiProgram: true,
      version: null,
      commandLineLimitBytes: null,
    }],
    ["initramfs", {
      kind: "not-a-kernel",
      why: "it is compressed by gzip, and does not begin with an arm64 Image",
      fault: "FORMAT_MISMATCH",
    }],
    ["rootfs-ext4", NO_HEADER],
    ["disk-bios", NO_HEADER],
  ])("tells our guest's %s", async (kind, expected) => {
    expect(await kernelIn(await makeGuestPart(kind))).toEqual(expected);
  });

  it("HD17 tells a guest kernel that was cut off", async () => {
    const path = join(directory(), "kernel");
    await copyFile(await makeGuestPart("kernel"), path);
    await truncate(path, MIB);
    expect(await kernelIn(path)).toEqual({
      kind: "not-a-kernel",
      why: expect.stringMatching(/^it is cut off: its setup header says \d+ bytes, it has 1048576$/),
      fault: "FORMAT_MISMATCH",
    });
  });

  it("tells the guest kernel from its first 64 KiB", async () => {
    const kernel = await readFile(await makeGuestPart("kernel"));
    const head = windowOf(kernel.subarray(0, HEAD_BYTES), kernel.length);
    expect(await recogniseKernel(head)).toEqual(GUEST_KERNEL);
  });
});

describe("recogniseUki on real files", () => {
  it("tells our guest's UKI, with its words", async () => {
    const path = await makeGuestPart("uki", { cmdline: "console=ttyS0 quiet panic=-1" });
    expect((await recogniseFile(path, recogniseUki)).content).toEqual({
      kind: "uki",
      architecture: "amd64",
      sections: expect.arrayContaining([".sbat", ".osrel", ".cmdline", ".linux", ".initrd"]),
      cmdline: "console=ttyS0 quiet panic=-1",
      osrel: 'ID=bootshim-guest\nNAME="bootshim guest"\nVERSION_ID=1',
      uname: null,
      isTextUnseen: false,
    });
  });

  it.each<[GuestPartKind, string, FormatFault]>([
    ["kernel", "it has no section .linux", "FORMAT_UNSAFE"],
    ["initramfs", "it is no EFI program", "FORMAT_MISMATCH"],
  ])("takes our guest's %s for none", async (kind, why, fault) => {
    expect((await recogniseFile(await makeGuestPart(kind), recogniseUki)).content).toEqual({
      kind: "not-a-uki",
      why,
      fault,
    });
  });
});

describe("recogniseIso on real files", () => {
  it("tells our guest's ISO, which boots by both", async () => {
    const { content, readBytes } = await recogniseFile(await makeGuestPart("iso"), recogniseIso);
    expect(content).toEqual({
      kind: "iso",
      volumeId: "BOOTSHIM",
      hasUdf: false,
      hasBiosBoot: true,
      hasUefiBoot: true,
      unseen: null,
      hybrid: null,
    });
    expect(readBytes).toBeLessThanOrEqual(66 * 1024);
  });

  it.each<[string, readonly string[], { hasUefiBoot: boolean; hybrid: "mbr" | "gpt" | null }]>([
    ["for nothing", [], { hasUefiBoot: false, hybrid: null }],
    ["for uefi only", ["-e", "boot.img", "-no-emul-boot"], { hasUefiBoot: true, hybrid: null }],
    [
      "HD16 for uefi and, by an MBR, USB sticks",
      ["-e", "boot.img", "-no-emul-boot", "-partition_offset", "16"],
      { hasUefiBoot: true, hybrid: "mbr" },
    ],
    [
      "HD16 for uefi and, by a GPT, USB sticks",
      ["-e", "boot.img", "-no-emul-boot", "-appended_part_as_gpt", "-append_partition", "2", "0xef", "BOOT"],
      { hasUefiBoot: true, hybrid: "gpt" },
    ],
  ])("tells xorriso's ISO %s", async (_name, options, expected) => {
    const path = join(directory(), "image.iso");
    const tree = join(directory(), "tree");
    await mkdir(tree);
    await writeFile(join(tree, "boot.img"), new Uint8Array(MIB));
    await runTool("xorriso", [
      "-report_about",
      "WARNING",
      "-as",
      "mkisofs",
      "-quiet",
      "-V",
      "SOME DISC",
      "-o",
      path,
      ...options.map((option) => option === "BOOT" ? join(tree, "boot.img") : option),
      tree,
    ]);
    expect((await recogniseFile(path, recogniseIso)).content).toEqual({
      kind: "iso",
      volumeId: "SOME DISC",
      hasUdf: false,
      hasBiosBoot: false,
      unseen: null,
      ...expected,
    });
  });

  it("HD16 takes a disk for none", async () => {
    expect((await recogniseFile(await makeGuestPart("disk-uefi"), recogniseIso)).content).toEqual({
      kind: "not-an-iso",
      why: "it has no volume descriptor of ISO 9660 or UDF",
      fault: "FORMAT_MISMATCH",
    });
  });
});

describe("recogniseInitramfs on real files", () => {
  it.each<[GuestPartKind, boolean]>([["initramfs", true], ["kernel", false], ["rootfs-ext4", false]])(
    "tells of our guest's %s: %s",
    async (kind, expected) => {
      const { content } = await recogniseFile(await makeGuestPart(kind), recogniseInitramfs);
      expect(content.isInitramfs).toBe(expected);
    },
  );

  it("HD18 tells cpio's formats apart", async () => {
    const isInitramfs: Record<string, boolean> = {};
    for (const format of ["newc", "crc", "odc", "bin"]) {
      const path = join(directory(), format);
      await runTool("sh", ["-c", `echo . | cpio --quiet -o -H ${format} -F "$1"`, "sh", path]);
      isInitramfs[format] = (await recogniseFile(path, recogniseInitramfs)).content.isInitramfs;
    }
    expect(isInitramfs).toEqual({ newc: true, crc: true, odc: false, bin: false });
  });
});
