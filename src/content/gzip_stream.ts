import { constants, createGunzip } from "node:zlib";
import { cannotUnpack } from "../boot/disk_packing.ts";
import { decode, DECODED_CHUNK_BYTES, type DecodeOptions } from "./decoder_stream.ts";

/**
 * What a gzip file of one or more members holds.
 *
 * @throws {ShimError} FORMAT_MISMATCH when it is truncated, corrupt, or followed by anything
 * @see https://www.rfc-editor.org/rfc/rfc1952#section-2.2
 */
export async function* gunzip(
  source: AsyncIterable<Uint8Array>,
  { isHead = false }: DecodeOptions = {},
): AsyncGenerator<Uint8Array> {
  let sourceBytes = 0;
  async function* counted() {
    for await (const chunk of source) {
      sourceBytes += chunk.length;
      yield chunk;
    }
  }
  const decoder = createGunzip({
    chunkSize: DECODED_CHUNK_BYTES,
    ...(isHead ? { finishFlush: constants.Z_SYNC_FLUSH } : {}),
  });
  yield* decode(counted(), { decoder, format: "gzip" });
  // zlib's stream looks no further than a zero byte after a member.
  const leftBytes = sourceBytes - decoder.bytesWritten;
  if (leftBytes > 0 && !isHead) {
    throw cannotUnpack(`${leftBytes} bytes follow the end of its gzip stream, must be none`);
  }
}
