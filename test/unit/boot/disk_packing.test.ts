import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  cannotUnpack,
  isSkippableMagic,
  isTarHeader,
  PACKING_HEAD_BYTES,
  recognisePacking,
} from "../../../src/boot/disk_packing.ts";
import { gzipOf, zstdOf } from "../../support/compressed_bytes.ts";
import { refusalOf } from "../../support/failures.ts";
import { concat, tarOf } from "../../support/tar_bytes.ts";

const ROOTFS = "application/vnd.ironcore.image.rootfs";
const content = new Uint8Array(randomBytes(2000));
const headOf = (bytes: Uint8Array) => bytes.subarray(0, PACKING_HEAD_BYTES);
const bytesOf = (characters: string) => Uint8Array.from(characters, (character) => character.charCodeAt(0));
const padded = (characters: string) => concat(bytesOf(characters), new Uint8Array(600));

const gzip = headOf(gzipOf(content));
const zstd = headOf(zstdOf(content));
const tar = headOf(tarOf({ name: "disk.raw", bytes: content }));
/** A boot sector, as far as it matters here. */
const raw = headOf(concat(new Uint8Array(510), bytesOf("\x55\xaa")));

describe("recognisePacking", () => {
  it.each([
    ["gzip, whatever its type says not", ROOTFS, gzip, { compression: "gzip" }],
    ["gzip by suffix", `${ROOTFS}+gzip`, gzip, { compression: "gzip" }],
    ["gzip of a tar by suffix", "application/vnd.oci.image.layer.v1.tar+gzip", gzip, { compression: "gzip" }],
    ["gzip by file name", `${ROOTFS}.tar.gz`, gzip, { compression: "gzip" }],
    ["gzip by its own type", "application/gzip", gzip, { compression: "gzip" }],
    ["gzip by its older type", "application/x-gzip", gzip, { compression: "gzip" }],
    ["gzip in capitals", `${ROOTFS}+GZIP`, gzip, { compression: "gzip" }],
    ["zstd", ROOTFS, zstd, { compression: "zstd" }],
    ["zstd by suffix", `${ROOTFS}+zstd`, zstd, { compression: "zstd" }],
    ["zstd by file name", `${ROOTFS}.zst`, zstd, { compression: "zstd" }],
    ["a plain tar", "application/vnd.oci.image.layer.v1.tar", tar, { compression: null }],
    ["a plain tar under the disk's type", ROOTFS, tar, { compression: null }],
    ["a raw disk", ROOTFS, raw, null],
    ["a raw disk under a tar's type", "application/vnd.oci.image.layer.v1.tar", raw, null],
    ["zeros", ROOTFS, new Uint8Array(PACKING_HEAD_BYTES), null],
    ["random bytes", ROOTFS, concat(bytesOf("\x01"), content.subarray(0, 511)), null],
    ["nothing at all", ROOTFS, new Uint8Array(), null],
    ["nothing at all, said to be gzip", `${ROOTFS}+gzip`, new Uint8Array(), { compression: "gzip" }],
    ["three bytes, said to be zstd", `${ROOTFS}+zstd`, zstd.subarray(0, 3), { compression: "zstd" }],
  ])("takes %s", (_, mediaType, head, packing) => {
    expect(recognisePacking(mediaType, head)).toEqual(packing);
  });

  it("finds zstd behind frames to be skipped, which parallel compressors write first", () => {
    const skippable = concat(bytesOf("\x5f\x2a\x4d\x18\x04\x00\x00\x00"), content.subarray(0, 4));
    expect(recognisePacking(ROOTFS, concat(skippable, skippable, zstd))).toEqual({ compression: "zstd" });
    expect(recognisePacking(ROOTFS, concat(skippable, content))).toBeNull();
    const endless = bytesOf("\x50\x2a\x4d\x18\xff\xff\xff\xff");
    expect(recognisePacking(ROOTFS, endless)).toBeNull();
    expect(recognisePacking(ROOTFS, endless.subarray(0, 6))).toBeNull();
  });

  it.each([
    ["xz", "\xfd7zXZ\0"],
    ["bzip2", "BZh91AY&SY"],
    ["bzip2", "BZh11AY&SY"],
    ["lz4", "\x04\x22\x4d\x18"],
  ])("refuses %s by its bytes and says what it takes", (name, magic) => {
    expect(refusalOf(() => recognisePacking(ROOTFS, padded(magic)))).toEqual({
      code: "FORMAT_MISMATCH",
      message:
        `Cannot unpack the disk layer: it is compressed with ${name}, must be gzip, zstd, or not compressed`,
      details: { remedy: "publish the disk compressed with zstd or gzip, or as it is" },
    });
    expect(refusalOf(() => recognisePacking(`${ROOTFS}+${name}`, padded(magic))).message).toContain(
      `compressed with ${name}`,
    );
  });

  it.each([
    [`${ROOTFS}+gzip`, "gzip", raw, "no such stream"],
    [`${ROOTFS}+gzip`, "gzip", zstd, "those of zstd"],
    [`${ROOTFS}+zstd`, "zstd", gzip, "those of gzip"],
    [`${ROOTFS}+zstd`, "zstd", tar, "no such stream"],
    [`${ROOTFS}+xz`, "xz", raw, "no such stream"],
    ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip", tar, "no such stream"],
  ])("refuses %s when the bytes are not %s", (mediaType, said, head, found) => {
    expect(refusalOf(() => recognisePacking(mediaType, head))).toEqual({
      code: "FORMAT_MISMATCH",
      message:
        `Cannot unpack the disk layer: its media type "${mediaType}" says ${said}, its first bytes are ${found}`,
      details: { remedy: "publish the layer with the media type of what it is" },
    });
  });
});

describe("isTarHeader", () => {
  it("takes every dialect by its checksum", () => {
    for (const magic of ["ustar\x0000", "ustar  \0", ""]) {
      expect(isTarHeader(tarOf({ name: "disk.raw", magic }))).toBe(true);
    }
    expect(isTarHeader(tarOf({ name: "\xff".repeat(99) }))).toBe(true);
  });

  it("refuses a header in which one byte differs, a short one, and zeros", () => {
    const header = tarOf({ name: "disk.raw" });
    for (let offset = 0; offset < 512; offset++) {
      const broken = header.slice(0, 512);
      // The checksum's own closing characters may be what they like.
      if (offset >= 154 && offset < 156) continue;
      broken[offset] = (broken[offset] ?? 0) ^ 1;
      expect([offset, isTarHeader(broken)]).toEqual([offset, false]);
    }
    expect(isTarHeader(header.subarray(0, 511))).toBe(false);
    expect(isTarHeader(new Uint8Array(512))).toBe(false);
  });
});

describe("isSkippableMagic", () => {
  it("takes the sixteen of RFC 8878 and no other", () => {
    expect([0x184d2a4f, 0x184d2a50, 0x184d2a5f, 0x184d2a60, undefined].map(isSkippableMagic)).toEqual([
      false,
      true,
      true,
      false,
      false,
    ]);
  });
});

describe("cannotUnpack", () => {
  it("tells whose fault it is when nothing better is known", () => {
    const cause = new Error("foreign");
    const error = cannotUnpack("it is broken", undefined, cause);
    expect([error.code, error.message, error.cause, error.details]).toEqual([
      "FORMAT_MISMATCH",
      "Cannot unpack the disk layer: it is broken",
      cause,
      { remedy: "the image's publisher must publish it anew: the layer's bytes are broken" },
    ]);
  });
});
