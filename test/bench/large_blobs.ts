import { createHash, createHmac } from "node:crypto";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { digestOf } from "../../src/image/digest.ts";

const BLOCK_BYTES = 1024 * 1024;
const block = makeBlock();

/** Bytes that do not compress and are the same in each process. */
function makeBlock(): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 64) {
    bytes.set(createHmac("sha512", "bootshim bench").update(String(at)).digest(), at);
  }
  return bytes;
}

/** A blob of any size that takes no memory: each MiB is another, so that no two can be confused. */
export type LargeBlob = { readonly seed: number; readonly sizeBytes: number };

/** The bytes from `startByte` on, at most to the end of their MiB. */
export function largeBlobChunk({ seed, sizeBytes }: LargeBlob, startByte: number): Uint8Array {
  const number = Math.floor(startByte / BLOCK_BYTES);
  const bytes = Buffer.from(block);
  bytes.writeUInt32BE(seed, 0);
  bytes.writeUInt32BE(number, 4);
  return bytes.subarray(startByte % BLOCK_BYTES, Math.min(BLOCK_BYTES, sizeBytes - number * BLOCK_BYTES));
}

export function largeBlobDescriptor(blob: LargeBlob): Descriptor {
  const hash = createHash("sha256");
  for (let at = 0; at < blob.sizeBytes; at += BLOCK_BYTES) hash.update(largeBlobChunk(blob, at));
  return {
    mediaType: "application/octet-stream",
    digest: digestOf("sha256", hash.digest("hex")),
    sizeBytes: blob.sizeBytes,
    annotations: {},
  };
}
