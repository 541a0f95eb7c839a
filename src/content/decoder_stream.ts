import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { cannotUnpack, type Compression } from "../boot/disk_packing.ts";

/** Bytes that a decoder gives at once at most. */
export const DECODED_CHUNK_BYTES = 256 * 1024;

export type DecodeOptions = {
  /** The source is only the beginning of the layer: where it ends, what came so far is the result. */
  readonly isHead?: boolean;
};

/**
 * What a decoder of `node:zlib` makes of `pieces`, as it is asked for. Stopping early stops the decoder and the source.
 *
 * @throws {ShimError} FORMAT_MISMATCH when the decoder fails; what `pieces` fails with passes
 */
export async function* decode(
  pieces: AsyncIterable<Uint8Array>,
  { decoder, format }: { readonly decoder: Transform; readonly format: Compression },
): AsyncGenerator<Uint8Array> {
  let failure: { readonly error: unknown } | undefined;
  async function* watched() {
    try {
      yield* pieces;
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  // Its failure is the decoder's too, which the loop sees.
  const feeding = pipeline(watched, decoder).catch(() => {});
  try {
    for await (const chunk of decoder as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    if (failure) throw failure.error;
    const words = error instanceof Error ? error.message : String(error);
    throw cannotUnpack(`it is no sound ${format} stream, ${words}`, undefined, error);
  } finally {
    decoder.destroy();
    await feeding;
  }
}
