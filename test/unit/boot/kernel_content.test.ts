import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import type { FormatFault } from "../../../src/boot/format_fault.ts";
import { type Kernel, type KernelContent, recogniseKernel } from "../../../src/boot/kernel_content.ts";
import { DUMMY } from "../../support/boot_findings.ts";
import { arm64Image, bytesWith, bzImage, efiProgram } from "../../support/disk_bytes.ts";
import { watched } from "../../support/watched_window.ts";
import { tarOf } from "../../support/tar_bytes.ts";

const GIB = 1024 ** 3;
const notAKernel = (why: string, fault: FormatFault = "FORMAT_MISMATCH"): KernelContent => ({
  kind: "not-a-kernel",
  why,
  fault,
});
const NO_HEADER = notAKernel("it has no bzImage, arm64 Image or EFI/PE header");
const BROKEN_PE = notAKernel("its EFI/PE header is broken or for an unknown machine");
const NOT_EFI = notAKernel("its PE header is not that of a 64-bit EFI application");

const kernel = (format: Kernel["format"], further: Partial<Kernel> = {}): Kernel => ({
  kind: "kernel",
  format,
  architecture: "amd64",
  isEfiProgram: true,
  version: null,
  commandLineLimitBytes: null,
  ...further,
});
const BZIMAGE = kernel("bzImage", {
  version: "6.1.0-test (builder@host) #1 SMP",
  commandLineLimitBytes: 2047,
});
const ARM_IMAGE = kernel("arm64 Image", { architecture: "arm64" });

/** Without the EFI program that it is, too. */
const withoutEfi = (bytes: Uint8Array) => bytes.fill(0, 0, 2);

function withMagic(program: Uint8Array): Uint8Array {
  program.set(Buffer.from("zimg"), 4);
  return program;
}

describe("recogniseKernel", () => {
  it.each<[string, Uint8Array, KernelContent]>([
    ["bzImage", bzImage(), BZIMAGE],
    ["bzImage without EFI", withoutEfi(bzImage()), { ...BZIMAGE, isEfiProgram: false }],
    ["bzImage with a signature behind it", new Uint8Array([...bzImage(), 1, 2, 3]), BZIMAGE],
    ["bzImage whose last paragraph is not full", bzImage({ loadedBytes: 8192 - 1024 + 15 }), BZIMAGE],
    ["bzImage of protocol 2.05", bzImage({ protocol: 0x205 }), { ...BZIMAGE, commandLineLimitBytes: 255 }],
    [
      "bzImage of protocol 2.11, before there were 64-bit kernels",
      bzImage({ protocol: 0x20b, is64Bit: false }),
      BZIMAGE,
    ],
    ["bzImage with another limit", bzImage({ commandLineLimitBytes: 4095 }), {
      ...BZIMAGE,
      commandLineLimitBytes: 4095,
    }],
    ["bzImage without version", bzImage({ versionAt: 0x200, version: "" }), { ...BZIMAGE, version: null }],
    ["bzImage with its version outside of the set-up", bzImage({ versionAt: 0x500 }), {
      ...BZIMAGE,
      version: null,
    }],
    ["bzImage whose version is not printable", bzImage({ version: "6.1\x1b[2J" }), {
      ...BZIMAGE,
      version: null,
    }],
    ["bzImage whose version does not end", bzImage({ version: "6".repeat(600) }), {
      ...BZIMAGE,
      isEfiProgram: false,
      version: "6".repeat(256),
    }],
    ["arm64 Image", arm64Image(), ARM_IMAGE],
    ["arm64 Image without EFI", withoutEfi(arm64Image()), { ...ARM_IMAGE, isEfiProgram: false }],
    ["arm64 Image of old", arm64Image({ imageBytes: 0n, textOffset: 2n ** 63n }), ARM_IMAGE],
    [
      "arm64 Image packed by gzip",
      gzipSync(arm64Image()),
      kernel("gzip arm64 Image", { architecture: "arm64" }),
    ],
    ["EFI program for amd64", efiProgram(0x8664), kernel("EFI/PE")],
    ["EFI program for arm64", efiProgram(0xaa64), kernel("EFI/PE", { architecture: "arm64" })],
    [
      "EFI program with its header beyond the first 4 KiB",
      efiProgram(0xaa64, { headerAt: 5000 }),
      kernel("EFI/PE", { architecture: "arm64" }),
    ],
    ["EFI zboot", withMagic(efiProgram(0xaa64)), kernel("EFI zboot", { architecture: "arm64" })],
    [
      "unified kernel image",
      efiProgram(0x8664, { sections: [{ name: ".text", bytes: "x" }, { name: ".linux", bytes: "x" }] }),
      kernel("UKI"),
    ],
    ["HD17 EFI program for RISC-V", efiProgram(0x5064), BROKEN_PE],
    ["HD17 EFI program for 32-bit x86", efiProgram(0x014c), BROKEN_PE],
    ["HD17 EFI program with a 32-bit header", efiProgram(0x8664, { magic: 0x10b }), NOT_EFI],
    ["HD17 Windows program", efiProgram(0x8664, { subsystem: 3 }), NOT_EFI],
    [
      "HD17 EFI program of 65,535 sections",
      efiProgram(0x8664, { sectionCount: 65535 }),
      notAKernel("its EFI/PE header counts 65535 sections, at most 96"),
    ],
    [
      "HD17 EFI program cut off in its sections",
      efiProgram(0x8664, { headerAt: 8000, sectionCount: 2 }).slice(0, 8192),
      notAKernel("its table of sections goes beyond the file"),
    ],
    ["HD17 EFI program cut off in its header", efiProgram(0x8664).slice(0, 0x85), BROKEN_PE],
    ["HD17 EFI program without header", bytesWith(8192, { 0: "MZ" }), BROKEN_PE],
    [
      "HD17 EFI program with its header beyond the end",
      bytesWith(8192, { 0: "MZ", 0x3c: [255, 255, 255, 255] }),
      BROKEN_PE,
    ],
    ["HD17 MZ alone", bytesWith(2, { 0: "MZ" }), notAKernel("its EFI/PE header is cut off")],
    [
      "HD17 bzImage of protocol 1.0",
      bzImage({ protocol: 0x100 }),
      notAKernel("its boot protocol is 0x100, must be 2.00 or later"),
    ],
    [
      "HD17 bzImage that is empty",
      bzImage({ loadedBytes: 0 }),
      notAKernel("its setup header says that it is empty"),
    ],
    [
      "HD17 bzImage cut off",
      bzImage({ loadedBytes: 8192 }),
      notAKernel("it is cut off: its setup header says 9216 bytes, it has 8192"),
    ],
    [
      "HD17 bzImage of any size",
      bzImage({ loadedBytes: 0xffffffff * 16 }),
      notAKernel("it is cut off: its setup header says 68719477744 bytes, it has 8192"),
    ],
    [
      "HD17 bzImage for 32-bit x86",
      bzImage({ is64Bit: false }),
      notAKernel("it is for 32-bit x86, must be for amd64 or arm64"),
    ],
    ["HD17 bzImage without boot signature", bytesWith(8192, { 0x202: "HdrS" }), NO_HEADER],
    ["HD17 bzImage with another header", bytesWith(8192, { 0x1fe: "\x55\xaa", 0x202: "HdrZ" }), NO_HEADER],
    ["HD17 bzImage cut off in its header", withoutEfi(bzImage()).slice(0, 0x205), NO_HEADER],
    [
      "HD17 arm64 Image far from where it should be",
      arm64Image({ textOffset: 2n ** 40n }),
      notAKernel("its text_offset is beyond 2 MiB"),
    ],
    [
      "HD17 arm64 Image of any size",
      arm64Image({ imageBytes: 2n ** 63n }),
      notAKernel("its image_size is beyond 1 GiB"),
    ],
    [
      "HD17 arm64 Image in big-endian",
      arm64Image({ flags: 1n }),
      notAKernel("it is big-endian, which no virtual machine here is"),
    ],
    ["a dummy of 1 MiB of zeros", new Uint8Array(1024 * 1024), DUMMY],
    ["one zero", new Uint8Array(1), DUMMY],
    ["HD17 an empty file", new Uint8Array(), notAKernel("the file is empty")],
    ["HD17 text", bytesWith(8192, { 0: "#!ipxe\nkernel http://x/vmlinuz\n" }), NO_HEADER],
    [
      "HD17 something else in gzip",
      gzipSync("hello"),
      notAKernel("it is compressed by gzip, and does not begin with an arm64 Image"),
    ],
    [
      "a kernel in a tar in gzip",
      gzipSync(tarOf({ name: "vmlinuz", bytes: bzImage() })),
      notAKernel("it is a tar archive compressed by gzip, must be the kernel itself"),
    ],
    [
      "a kernel in a tar",
      tarOf({ name: "vmlinuz", bytes: bzImage() }),
      notAKernel("it is a tar archive, must be the kernel itself"),
    ],
    [
      "HD17 a bomb in gzip",
      gzipSync(new Uint8Array(8 * 1024 * 1024)),
      notAKernel("it is compressed by gzip, and does not begin with an arm64 Image"),
    ],
    [
      "HD17 gzip's magic alone",
      bytesWith(8192, { 0: "\x1f\x8b\x08" }),
      notAKernel("it is compressed by gzip, and does not begin with an arm64 Image"),
    ],
    ["HD17 an ELF file", bytesWith(8192, { 0: "\x7fELF" }), NO_HEADER],
    ["HD17 a disk", bytesWith(8192, { 0: "\xfa", 510: "\x55\xaa" }), NO_HEADER],
  ])("tells %s", async (_name, bytes, expected) => {
    const { window, readBytes } = watched(windowOf(bytes));
    expect(await recogniseKernel(window)).toEqual(expected);
    expect(readBytes()).toBeLessThanOrEqual(10 * 1024);
  });

  it("HD17 looks at the head only, and not at all at 1 GiB and more", async () => {
    expect(await recogniseKernel(windowOf(new Uint8Array(4096), GIB - 1))).toEqual(DUMMY);
    expect(await recogniseKernel(windowOf(bzImage(), GIB))).toEqual(
      notAKernel("it has 1073741824 bytes, a kernel has less than 1073741824", "LIMIT_EXCEEDED"),
    );
  });

  it.each<[string, Uint8Array, KernelContent]>([
    ["nothing", new Uint8Array(), { kind: "unknown", why: "cannot be told without its bytes" }],
    ["a few bytes", new Uint8Array(100), { kind: "unknown", why: "cannot be told from its first 100 bytes" }],
    [
      "an EFI program whose header is elsewhere",
      efiProgram(0x8664, { headerAt: 6000 }).slice(0, 5000),
      { kind: "unknown", why: "cannot be told from its first 4 KiB" },
    ],
    ["its first 4 KiB", bzImage().slice(0, 4096), BZIMAGE],
  ])("says what it can of a file of which it sees only %s", async (_name, head, expected) => {
    expect(await recogniseKernel(windowOf(head, 8192))).toEqual(expected);
  });
});
