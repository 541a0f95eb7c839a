import { constants, gunzipSync, inflateRawSync, zstdDecompressSync } from "node:zlib";
import { Fields } from "./byte_window.ts";

export type Packing = "gzip" | "deflate" | "zstd";

const RLE_BLOCK = 1;

/**
 * What packed bytes begin with: as much as the given part of them holds, whatever follows their end.
 *
 * @returns undefined when they are no such stream, or hold more than `maxBytes`
 */
export function unpackHead(
  packed: Uint8Array,
  { packing, maxBytes }: { packing: Packing; maxBytes: number },
): Uint8Array | undefined {
  // What is cut off gives what can be had of it, instead of an error.
  const flush = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: maxBytes };
  try {
    if (packing === "gzip") return gunzipSync(packed, flush);
    if (packing === "deflate") return inflateRawSync(packed, flush);
    return zstdDecompressSync(zstdFrame(packed), {
      finishFlush: constants.ZSTD_e_flush,
      maxOutputLength: maxBytes,
    });
  } catch {
    // Bytes that are no such stream are a finding, not a failure.
    return undefined;
  }
}

/** The first frame without what follows it, which Deno's decoder would take for another (RFC 8878, section 3.1.1). */
function zstdFrame(packed: Uint8Array): Uint8Array {
  const fields = new Fields(packed);
  const flags = fields.u8(4) ?? 0;
  const isSingleSegment = (flags & 0x20) !== 0;
  const sizeFieldBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  const dictionaryBytes = [0, 1, 2, 4][flags & 3] ?? 0;
  let at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + sizeFieldBytes;
  for (let isLast = false; !isLast && at < packed.length;) {
    const header = (fields.u8(at) ?? 0) | (fields.u8(at + 1) ?? 0) << 8 | (fields.u8(at + 2) ?? 0) << 16;
    isLast = (header & 1) !== 0;
    at += 3 + (((header >> 1) & 3) === RLE_BLOCK ? 1 : header >> 3);
  }
  return fields.slice(0, at + ((flags & 0x04) !== 0 ? 4 : 0));
}
