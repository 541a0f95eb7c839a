import { ShimError } from "../errors.ts";
import { HOLE_BYTES } from "../host/sparse_writer.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestOf } from "../image/digest.ts";
import type { BlockTaker } from "./blob_blocks.ts";

/** Bytes collected before they are hashed and written: one step takes about a millisecond. */
const BLOCK_BYTES = 1024 * 1024;

export type WriteStreamOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told after every chunk how many bytes of the blob are there. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
};

/**
 * Puts a blob's bytes into an empty file in order, hashes them on the way, and leaves out zeros. While blocks are hashed
 * and written, the next one is filled. The file's size always is the number of bytes that were written, so that whoever
 * finds it knows where to go on.
 */
export class BlobWriter {
  readonly #taker: BlockTaker;
  readonly #descriptor: Descriptor;
  readonly #blockBytes: number;
  #block: Uint8Array | undefined;
  #filled = 0;
  /** Where in the file the block belongs. */
  #offset = 0;
  /** The blocks on their way, in order; each can be filled again when it is taken. */
  readonly #taking: { readonly block: Uint8Array; readonly taken: Promise<void> }[] = [];
  #blocks = 0;

  constructor(taker: BlockTaker, descriptor: Descriptor) {
    this.#taker = taker;
    this.#descriptor = descriptor;
    this.#blockBytes = Math.min(BLOCK_BYTES, Math.ceil((descriptor.sizeBytes + 1) / HOLE_BYTES) * HOLE_BYTES);
  }

  /** How many of the blob's bytes have been taken in. */
  get takenBytes(): number {
    return this.#offset + this.#filled;
  }

  /**
   * Takes in what the file holds already: hashed, because nobody knows who wrote it. To be called first of all.
   *
   * @param presentBytes the file's size, or a multiple of {@link HOLE_BYTES} below it
   */
  async takePresent(presentBytes: number, { signal, onProgress }: WriteStreamOptions): Promise<void> {
    while (this.#offset < presentBytes) {
      throwIfAborted(signal);
      const lengthBytes = Math.min(BLOCK_BYTES, presentBytes - this.#offset);
      const takenBytes = await this.#taker.takePresent(this.#offset, lengthBytes);
      if (takenBytes === 0) break;
      this.#offset += takenBytes;
      onProgress?.(this.#offset);
    }
  }

  /**
   * Takes in all that follows. The stream is used up or cancelled. After a failure, what came is written as far as
   * that is possible.
   *
   * @throws {ShimError} CONTENT_SIZE_MISMATCH, CANCELLED; errno errors and what the stream fails with pass
   */
  async takeStream(stream: ReadableStream<Uint8Array>, options: WriteStreamOptions): Promise<void> {
    const chunks = readChunks(stream, options.signal);
    const { sizeBytes } = this.#descriptor;
    try {
      for await (const chunk of chunks) {
        if (this.takenBytes + chunk.length > sizeBytes) {
          throw sizeMismatch(this.#descriptor, this.takenBytes + chunk.length);
        }
        await this.#take(chunk);
        options.onProgress?.(this.takenBytes);
      }
      if (this.takenBytes < sizeBytes) throw sizeMismatch(this.#descriptor, this.takenBytes);
    } catch (error) {
      await this.#keepWhatCame();
      throw error;
    } finally {
      chunks.stop();
    }
  }

  /** Writes what is left. @returns the digest of all bytes taken in */
  async finish(): Promise<Digest> {
    this.#flush();
    for (const { taken } of this.#taking) await taken;
    return digestOf(digestAlgorithm(this.#descriptor.digest), await this.#taker.hexDigest());
  }

  async #take(chunk: Uint8Array): Promise<void> {
    for (let taken = 0; taken < chunk.length;) {
      this.#block ??= await this.#emptyBlock();
      const part = chunk.subarray(taken, taken + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === this.#block.length) this.#flush();
    }
  }

  async #emptyBlock(): Promise<Uint8Array> {
    const first = this.#blocks < this.#taker.atOnce ? undefined : this.#taking.shift();
    if (first === undefined) {
      this.#blocks += 1;
      return this.#taker.makeBlock(this.#blockBytes);
    }
    await first.taken;
    return first.block;
  }

  #flush(): void {
    const block = this.#block;
    if (block === undefined || this.#filled === 0) return;
    const taken = this.#taker.take(block.subarray(0, this.#filled), this.#offset);
    taken.catch(() => {}); // told by whoever waits for it next
    this.#taking.push({ block, taken });
    this.#block = undefined;
    this.#offset += this.#filled;
    this.#filled = 0;
  }

  /** As far as that is possible: the failure before it is the one to tell. */
  async #keepWhatCame(): Promise<void> {
    this.#flush();
    await Promise.allSettled(this.#taking.map(({ taken }) => taken));
  }
}

function sizeMismatch({ digest, sizeBytes }: Descriptor, receivedBytes: number): ShimError {
  const received = receivedBytes > sizeBytes ? `more than ${sizeBytes}` : String(receivedBytes);
  return new ShimError(
    "CONTENT_SIZE_MISMATCH",
    `Cannot ingest blob "${digest}": received ${received} bytes, descriptor says ${sizeBytes} bytes`,
    { details: { digest, expectedBytes: sizeBytes, receivedBytes } },
  );
}

/** @throws {ShimError} CANCELLED */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new ShimError("CANCELLED", "Cannot ingest blob: cancelled", { cause: signal.reason });
  }
}

/**
 * A stream's chunks; `stop` cancels what was not read. A signal ends a read that waits, and shows as
 * CANCELLED.
 */
function readChunks(stream: ReadableStream<Uint8Array>, signal: AbortSignal | undefined) {
  const reader = stream.getReader();
  // Cancelling a stream that has failed rejects with the failure, which the read has told already.
  const cancel = () => void reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  return {
    async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
      for (;;) {
        throwIfAborted(signal);
        const { done, value } = await reader.read().catch((error: unknown) => {
          throwIfAborted(signal);
          throw error;
        });
        throwIfAborted(signal);
        if (done) return;
        yield value;
      }
    },
    stop(): void {
      signal?.removeEventListener("abort", cancel);
      cancel();
    },
  };
}
