import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { isInitramfs, type KernelContent, recogniseKernel } from "../../../src/boot/kernel_content.ts";
import { arm64Image, bytesWith, bzImage, efiProgram } from "../../support/disk_bytes.ts";

const notAKernel = (why: string): KernelContent => ({ kind: "not-a-kernel", why });
const NO_HEADER = notAKernel("it has no bzImage, arm64 Image or EFI/PE header");
const BROKEN_PE = notAKernel("its EFI/PE header is broken or for an unknown machine");
const DUMMY = notAKernel("it begins with zeros only: a dummy");

describe("recogniseKernel", () => {
  it.each<[string, Uint8Array, KernelContent]>([
    ["bzImage", bzImage(), { kind: "kernel", format: "bzImage", architecture: "amd64" }],
    ["bzImage without EFI", bytesWith(8192, { 0x1fe: "\x55\xaa", 0x202: "HdrS" }), {
      kind: "kernel",
      format: "bzImage",
      architecture: "amd64",
    }],
    ["arm64 Image", arm64Image(), { kind: "kernel", format: "arm64 Image", architecture: "arm64" }],
    ["arm64 Image without EFI", bytesWith(64, { 56: "ARM\x64" }), {
      kind: "kernel",
      format: "arm64 Image",
      architecture: "arm64",
    }],
    ["EFI program for amd64", efiProgram(0x8664), {
      kind: "kernel",
      format: "EFI/PE",
      architecture: "amd64",
    }],
    ["EFI program for arm64", efiProgram(0xaa64), {
      kind: "kernel",
      format: "EFI/PE",
      architecture: "arm64",
    }],
    ["EFI program with its header beyond the first 4 KiB", efiProgram(0xaa64, { headerAt: 5000 }), {
      kind: "kernel",
      format: "EFI/PE",
      architecture: "arm64",
    }],
    ["EFI program with its header at the very end", efiProgram(0x8664, { headerAt: 8186 }), {
      kind: "kernel",
      format: "EFI/PE",
      architecture: "amd64",
    }],
    ["HD17 EFI program for RISC-V", efiProgram(0x5064), BROKEN_PE],
    ["HD17 EFI program for 32-bit x86", efiProgram(0x014c), BROKEN_PE],
    [
      "HD17 EFI program with its header beyond the end",
      efiProgram(0x8664, { headerAt: 0xffffffff }),
      BROKEN_PE,
    ],
    ["HD17 EFI program cut off in its header", efiProgram(0x8664).slice(0, 0x85), BROKEN_PE],
    ["HD17 EFI program without header", bytesWith(8192, { 0: "MZ" }), BROKEN_PE],
    ["HD17 MZ alone", bytesWith(2, { 0: "MZ" }), BROKEN_PE],
    ["HD17 bzImage without boot signature", bytesWith(8192, { 0x202: "HdrS" }), NO_HEADER],
    ["HD17 bzImage with another header", bytesWith(8192, { 0x1fe: "\x55\xaa", 0x202: "HdrZ" }), NO_HEADER],
    ["HD17 bzImage cut off in its header", bzImage().fill(0, 0, 2).slice(0, 0x205), NO_HEADER],
    ["a dummy of 1 MiB of zeros", new Uint8Array(1024 * 1024), DUMMY],
    ["one zero", new Uint8Array(1), DUMMY],
    ["HD17 an empty file", new Uint8Array(), notAKernel("the file is empty")],
    ["HD17 text", bytesWith(8192, { 0: "#!ipxe\nkernel http://x/vmlinuz\n" }), NO_HEADER],
    ["HD17 a gzipped kernel", bytesWith(8192, { 0: "\x1f\x8b\x08" }), NO_HEADER],
    ["HD17 an ELF file", bytesWith(8192, { 0: "\x7fELF" }), NO_HEADER],
    ["HD17 a disk", bytesWith(8192, { 0: "\xfa", 510: "\x55\xaa" }), NO_HEADER],
  ])("tells %s", async (_name, bytes, expected) => {
    expect(await recogniseKernel(windowOf(bytes))).toEqual(expected);
  });

  it("HD17 looks at the head of 1 GiB only", async () => {
    expect(await recogniseKernel(windowOf(new Uint8Array(4096), 1024 ** 3))).toEqual(DUMMY);
  });

  it("never throws and reads little, whatever the bytes", async () => {
    const anyHead = fc.tuple(fc.constantFrom("", "MZ"), fc.uint8Array({ maxLength: 1024 })).map((
      [magic, rest],
    ) => new Uint8Array(Buffer.concat([Buffer.from(magic), rest])));
    await fc.assert(fc.asyncProperty(anyHead, fc.maxSafeNat(), async (head, sizeBytes) => {
      let readBytes = 0;
      const window = windowOf(head, sizeBytes);
      const content = await recogniseKernel({
        sizeBytes,
        read: (offset, length) => {
          expect(Number.isSafeInteger(offset) && offset >= 0).toBe(true);
          readBytes += length;
          return window.read(offset, length);
        },
      });
      expect(["kernel", "not-a-kernel"]).toContain(content.kind);
      expect(readBytes).toBeLessThanOrEqual(4096 + 6);
    }));
  });
});

describe("isInitramfs", () => {
  it.each([
    ["cpio", "070701000000"],
    ["cpio with checksums", "070702000000"],
    ["gzip", "\x1f\x8b\x08"],
    ["xz", "\xfd7zXZ\0"],
    ["zstd", "\x28\xb5\x2f\xfd"],
    ["lz4", "\x02\x21\x4c\x18"],
    ["lzma", "\x5d\0\0\x80"],
    ["bzip2", "BZh9"],
    ["lzo", "\x89LZO\0\r\n"],
  ])("knows %s", async (_name, magic) => {
    expect(await isInitramfs(windowOf(bytesWith(64, { 0: magic })))).toBe(true);
  });

  it.each([
    ["an empty file", new Uint8Array()],
    ["a dummy of zeros", new Uint8Array(1024 * 1024)],
    ["an old cpio that the kernel does not read", bytesWith(64, { 0: "070707" })],
    ["a cut off magic", bytesWith(5, { 0: "07070" })],
    ["a squashfs", bytesWith(64, { 0: "hsqs" })],
    ["text", bytesWith(64, { 0: "hello" })],
    ["random bytes", new Uint8Array([0x99, ...randomBytes(63)])],
  ])("HD18 knows that %s is none", async (_name, bytes) => {
    expect(await isInitramfs(windowOf(bytes))).toBe(false);
  });
});
