import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import type { OpenFile } from "../host/file_system.ts";

/** One step of hashing keeps the main loop for about a millisecond. */
const BLOCK_BYTES = 1024 * 1024;

export type HashOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told how many bytes have been hashed so far. Silent when nothing has to be hashed. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
};

/**
 * The hash of all of a file, in lower-case hex.
 *
 * @throws {ShimError} CANCELLED; errno errors pass
 */
export async function hashFile(
  file: OpenFile,
  { algorithm, sizeBytes, signal, onProgress }: HashOptions & {
    readonly algorithm: string;
    readonly sizeBytes: number;
  },
): Promise<string> {
  const hash = createHash(algorithm);
  // One byte more than a small file has shows its end at once.
  const blockBytes = Math.min(BLOCK_BYTES, sizeBytes + 1);
  const blocks = [new Uint8Array(blockBytes), new Uint8Array(blockBytes)] as const;
  const read = (block: Uint8Array, at: number) => {
    const reading = file.read(block, at);
    reading.catch(() => {}); // told where it is awaited; a cancellation may come before
    return reading;
  };
  let offset = 0;
  let reading = read(blocks[0], 0);
  for (let turn = 0;; turn = 1 - turn) {
    const length = await reading;
    if (signal?.aborted) {
      throw new ShimError("CANCELLED", "Cannot check all: cancelled", { cause: signal.reason });
    }
    if (length === 0) return hash.digest("hex");
    offset += length;
    // The next block is read while this one is hashed.
    reading = read(blocks[turn === 0 ? 1 : 0], offset);
    hash.update((turn === 0 ? blocks[0] : blocks[1]).subarray(0, length));
    onProgress?.(offset);
  }
}
