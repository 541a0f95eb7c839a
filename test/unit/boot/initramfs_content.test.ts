import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { type InitramfsContent, recogniseInitramfs } from "../../../src/boot/initramfs_content.ts";
import { bytesWith } from "../../support/disk_bytes.ts";
import { tarOf } from "../../support/tar_bytes.ts";

describe("recogniseInitramfs", () => {
  it.each([
    ["cpio", "070701000000"],
    ["cpio with checksums", "070702000000"],
    ["gzip", "\x1f\x8b\x08"],
    ["gzip of old", "\x1f\x9e\x08"],
    ["xz", "\xfd7zXZ\0"],
    ["zstd", "\x28\xb5\x2f\xfd"],
    ["lz4", "\x02\x21\x4c\x18"],
    ["lzma", "\x5d\0\0\x80"],
    ["bzip2", "BZh9"],
    ["lzo", "\x89LZO\0\r\n"],
  ])("knows %s", async (_name, magic) => {
    expect(await recogniseInitramfs(windowOf(bytesWith(64, { 0: magic })))).toEqual({ isInitramfs: true });
  });

  const UNKNOWN = "it is no cpio archive, and compressed by nothing known";
  const TAR = "it is a tar archive, the kernel unpacks cpio only";
  const DUMMY = "it begins with zeros only: a dummy";

  it.each<[string, Uint8Array, string]>([
    ["an empty file", new Uint8Array(), "the file is empty"],
    ["a dummy of zeros", new Uint8Array(1024 * 1024), DUMMY],
    [
      "a cpio archive that the kernel does not read",
      bytesWith(64, { 0: "070707" }),
      "it is a cpio archive in the old format (odc), the kernel unpacks newc only",
    ],
    [
      "an older one",
      bytesWith(64, { 0: "\xc7\x71" }),
      "it is a cpio archive in the old binary format, the kernel unpacks newc only",
    ],
    ["a tar", tarOf({ name: "initrd", bytes: new Uint8Array(9000) }), TAR],
    ["a tar in gzip", gzipSync(tarOf({ name: "initrd", bytes: new Uint8Array(randomBytes(9000)) })), TAR],
    [
      "lz4 in frames",
      bytesWith(64, { 0: "\x04\x22\x4d\x18" }),
      "it is compressed by lz4 in frames, the kernel unpacks the legacy format only (lz4 -l)",
    ],
    ["a cut off magic", bytesWith(5, { 0: "07070" }), UNKNOWN],
    ["a squashfs", bytesWith(64, { 0: "hsqs" }), UNKNOWN],
    ["text", bytesWith(64, { 0: "hello" }), UNKNOWN],
    ["random bytes", new Uint8Array([0x99, ...randomBytes(63)]), UNKNOWN],
  ])("HD18 knows that %s is none, and why", async (_name, bytes, why) => {
    expect(await recogniseInitramfs(windowOf(bytes))).toEqual({ isInitramfs: false, why });
  });

  it.each<[number, InitramfsContent]>([
    [0, { isInitramfs: false, why: "its bytes were not seen" }],
    [7, { isInitramfs: true }],
    [100, { isInitramfs: true }],
  ])("says what it can of %i bytes", async (visibleBytes, expected) => {
    const file = bytesWith(8192, { 0: "070701" });
    expect(await recogniseInitramfs(windowOf(file.slice(0, visibleBytes), file.length))).toEqual(expected);
  });
});
