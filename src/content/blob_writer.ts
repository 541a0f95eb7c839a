import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import type { OpenFile } from "../host/file_system.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestOf } from "../image/digest.ts";
import { HOLE_BYTES, writeSparsely } from "../host/sparse_writer.ts";

/**
 * Bytes collected before they are hashed and written: one step keeps the main loop for about a millisecond. Two such
 * blocks are all that is buffered.
 */
const BLOCK_BYTES = 1024 * 1024;

export type WriteStreamOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told after every chunk how many bytes of the blob are there. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
};

/**
 * Puts a blob's bytes into an empty file in order, hashes them on the way, and leaves out zeros. While one block is
 * written, the next one is hashed and filled. The file's size always is the number of bytes that were written, so
 * that whoever finds it knows where to go on.
 */
export class BlobWriter {
  readonly #file: OpenFile;
  readonly #descriptor: Descriptor;
  readonly #hash;
  #block: Uint8Array;
  #other: Uint8Array;
  #filled = 0;
  /** Where in the file the block belongs. */
  #offset = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(file: OpenFile, descriptor: Descriptor) {
    this.#file = file;
    this.#descriptor = descriptor;
    this.#hash = createHash(digestAlgorithm(descriptor.digest));
    const blockBytes = Math.min(BLOCK_BYTES, Math.ceil((descriptor.sizeBytes + 1) / HOLE_BYTES) * HOLE_BYTES);
    this.#block = new Uint8Array(blockBytes);
    this.#other = new Uint8Array(blockBytes);
  }

  /** How many of the blob's bytes have been taken in. */
  get takenBytes(): number {
    return this.#offset + this.#filled;
  }

  /**
   * Takes in what the file holds already: hashed, because nobody knows who wrote it. To be called first of all.
   *
   * @param sizeBytes the file's size; what follows the last whole {@link HOLE_BYTES} is cut off, unless that is all
   */
  async takePrefix(sizeBytes: number, { signal, onProgress }: WriteStreamOptions): Promise<void> {
    const isWhole = sizeBytes === this.#descriptor.sizeBytes;
    const prefixBytes = isWhole ? sizeBytes : sizeBytes - sizeBytes % HOLE_BYTES;
    while (this.#offset < prefixBytes) {
      throwIfAborted(signal);
      const part = this.#block.subarray(0, Math.min(this.#block.length, prefixBytes - this.#offset));
      const readBytes = await this.#file.read(part, this.#offset);
      if (readBytes === 0) break;
      this.#hash.update(part.subarray(0, readBytes));
      this.#offset += readBytes;
      onProgress?.(this.#offset);
    }
    if (prefixBytes < sizeBytes) await this.#file.truncate(prefixBytes);
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
      await this.#flush().then(() => this.#writing).catch(() => {}); // the first failure is the one to tell
      throw error;
    } finally {
      chunks.stop();
    }
  }

  /** Writes what is left. @returns the digest of all bytes taken in */
  async finish(): Promise<Digest> {
    await this.#flush();
    await this.#writing;
    return digestOf(digestAlgorithm(this.#descriptor.digest), this.#hash.digest("hex"));
  }

  async #take(chunk: Uint8Array): Promise<void> {
    for (let taken = 0; taken < chunk.length;) {
      const part = chunk.subarray(taken, taken + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === this.#block.length) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    await this.#writing;
    if (this.#filled === 0) return;
    const bytes = this.#block.subarray(0, this.#filled);
    this.#writing = this.#write(bytes, this.#offset);
    this.#writing.catch(() => {}); // told by whoever waits for it next
    this.#hash.update(bytes);
    this.#offset += this.#filled;
    this.#filled = 0;
    [this.#block, this.#other] = [this.#other, this.#block];
  }

  async #write(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    const isHoleLast = await writeSparsely(this.#file, bytes, offsetBytes);
    if (isHoleLast) await this.#file.truncate(offsetBytes + bytes.length);
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
