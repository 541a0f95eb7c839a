import { type ByteWindow, readPart } from "./byte_window.ts";
import { isTarHeader } from "./disk_packing.ts";
import { unpackHead } from "./unpack_head.ts";

/** Whether a kernel would unpack it; `why` not, as the end of a sentence. */
export type InitramfsContent = { readonly isInitramfs: boolean; readonly why?: string };

/** What the kernel unpacks: init/initramfs.c and lib/decompress.c of Linux 6.1. */
const MAGICS: readonly string[] = [
  "070701", // cpio newc
  "070702", // cpio newc with checksums
  "\x1f\x8b", // gzip
  "\x1f\x9e", // gzip of old
  "\xfd7zXZ\0", // xz
  "\x28\xb5\x2f\xfd", // zstd
  "\x02\x21\x4c\x18", // lz4 legacy
  "\x5d\0\0", // lzma
  "BZh", // bzip2
  "\x89LZO\0", // lzo
];

/** What looks like one, and the kernel refuses. */
const REFUSED: readonly (readonly [magic: string, why: string])[] = [
  ["070707", "it is a cpio archive in the old format (odc), the kernel unpacks newc only"],
  ["\xc7\x71", "it is a cpio archive in the old binary format, the kernel unpacks newc only"],
  [
    "\x04\x22\x4d\x18",
    "it is compressed by lz4 in frames, the kernel unpacks the legacy format only (lz4 -l)",
  ],
];

const DUMMY_BYTES = 4096;
/** Deflate makes at most 1,032 bytes of one. */
const MAX_UNPACKED_BYTES = 1032 * DUMMY_BYTES;

/** Whether the kernel could unpack it: a cpio archive or one of the compressions it knows. Reads 4 KiB at most. */
export async function recogniseInitramfs(file: ByteWindow): Promise<InitramfsContent> {
  const { fields, isCut } = await readPart(file, 0, DUMMY_BYTES);
  const packed = fields.slice(0, fields.length);
  const inner = fields.has(0, "\x1f\x8b")
    ? unpackHead(packed, { packing: "gzip", maxBytes: MAX_UNPACKED_BYTES }) ?? packed
    : packed;
  if (isTarHeader(inner.subarray(0, 512))) {
    return { isInitramfs: false, why: "it is a tar archive, the kernel unpacks cpio only" };
  }
  if (MAGICS.some((magic) => fields.has(0, magic))) return { isInitramfs: true };
  const refused = REFUSED.find(([magic]) => fields.has(0, magic));
  if (refused) return { isInitramfs: false, why: refused[1] };
  if (file.sizeBytes === 0) return { isInitramfs: false, why: "the file is empty" };
  if (isCut && fields.length < 8) return { isInitramfs: false, why: "its bytes were not seen" };
  const isZero = fields.isZero(0, fields.length);
  return {
    isInitramfs: false,
    why: isZero
      ? "it begins with zeros only: a dummy"
      : "it is no cpio archive, and compressed by nothing known",
  };
}
