import { gzipSync, zstdCompressSync } from "node:zlib";
import { concat } from "./tar_bytes.ts";

export function gzipOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(gzipSync(bytes));
}

/** One frame and nothing after it: some runtimes append an empty one. */
export function zstdOf(bytes: Uint8Array): Uint8Array {
  const compressed = new Uint8Array(zstdCompressSync(bytes));
  return compressed.subarray(0, lengthOfFrame(compressed));
}

/** `count` times the same member or frame: as good as a compressor's own output, and made at once. */
export function repeated(part: Uint8Array, count: number): Uint8Array {
  return concat(...Array.from({ length: count }, () => part));
}

/** RFC 8878, section 3.1.1. */
function lengthOfFrame(bytes: Uint8Array): number {
  const flags = bytes[4] ?? 0;
  const isSingleSegment = (flags & 0x20) !== 0;
  let offset = 5 + (isSingleSegment ? 0 : 1) + ([0, 1, 2, 4][flags & 3] ?? 0);
  offset += [isSingleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  for (let isLast = false; !isLast;) {
    const header = (bytes[offset] ?? 0) | (bytes[offset + 1] ?? 0) << 8 | (bytes[offset + 2] ?? 0) << 16;
    isLast = (header & 1) !== 0;
    offset += 3 + ((header >> 1 & 3) === 1 ? 1 : header >> 3);
  }
  return offset + ((flags & 0x04) === 0 ? 0 : 4);
}
