import { createHash } from "node:crypto";
import type { OpenFile } from "../host/file_system.ts";
import { writeSparsely } from "../host/sparse_writer.ts";

/** One step of hashing: about a millisecond. */
const HASH_BYTES = 1024 * 1024;

/**
 * Who puts a blob's bytes into its file and hashes them, on this thread or another. Calls are answered in the order in
 * which they were made; after one that failed, all later ones fail with it and leave the file alone.
 */
export interface BlockTaker {
  /** So many blocks may be on their way at once. */
  readonly atOnce: number;
  /** Memory that blocks are handed over in, again and again. */
  makeBlock(lengthBytes: number): Uint8Array;
  /**
   * Takes in the bytes that belong at `offsetBytes`, where the last ones ended.
   *
   * @param bytes the beginning of what {@link makeBlock} made; may be filled anew when this resolves
   */
  take(bytes: Uint8Array, offsetBytes: number): Promise<void>;
  /** Hashes what the file holds already from `offsetBytes` on. @returns how many bytes it found, at most `lengthBytes` */
  takePresent(offsetBytes: number, lengthBytes: number): Promise<number>;
  /** The hash of all bytes taken in, in lower-case hex; they are written. No call follows but `close`. */
  hexDigest(): Promise<string>;
  /**
   * Waits for what is under way, and lets go of the file. Rejects when a sync failed: whoever stopped before he asked for
   * the hash has not been told, and the kernel tells it once. What else failed was told to whoever asked for the bytes.
   */
  close(): Promise<void>;
}

/** Takes blocks on this thread: while one is written, it is hashed. Whoever opened the file closes it. */
export class BlobBlocks implements BlockTaker {
  readonly atOnce = 2;
  readonly #file: OpenFile;
  readonly #hash;
  readonly #syncEveryBytes: number;
  #last: Promise<unknown> = Promise.resolve();
  #unsyncedBytes = 0;
  #syncing: Promise<void> = Promise.resolve();

  /** @param options.syncEveryBytes begins to sync what was written that often; default: never, whoever opened it does */
  constructor(
    file: OpenFile,
    algorithm: string,
    { syncEveryBytes = Infinity }: { readonly syncEveryBytes?: number } = {},
  ) {
    this.#file = file;
    this.#hash = createHash(algorithm);
    this.#syncEveryBytes = syncEveryBytes;
  }

  makeBlock(lengthBytes: number): Uint8Array {
    return new Uint8Array(lengthBytes);
  }

  take(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    return this.#inTurn(async () => {
      const writing = this.#write(bytes, offsetBytes);
      writing.catch(() => {}); // awaited below
      this.#hash.update(bytes);
      await writing;
      this.#unsyncedBytes += bytes.length;
      if (this.#unsyncedBytes >= this.#syncEveryBytes) await this.#beginSync();
    });
  }

  takePresent(offsetBytes: number, lengthBytes: number): Promise<number> {
    return this.#inTurn(async () => {
      const buffer = new Uint8Array(Math.min(HASH_BYTES, lengthBytes));
      let doneBytes = 0;
      while (doneBytes < lengthBytes) {
        const part = buffer.subarray(0, Math.min(buffer.length, lengthBytes - doneBytes));
        const readBytes = await this.#file.read(part, offsetBytes + doneBytes);
        if (readBytes === 0) break;
        this.#hash.update(part.subarray(0, readBytes));
        doneBytes += readBytes;
      }
      return doneBytes;
    });
  }

  hexDigest(): Promise<string> {
    return this.#inTurn(async () => {
      await this.#syncing;
      return this.#hash.digest("hex");
    });
  }

  async close(): Promise<void> {
    await this.#last.catch(() => {});
    await this.#syncing;
  }

  /** One at a time; a failed one is final. */
  async #beginSync(): Promise<void> {
    await this.#syncing;
    this.#unsyncedBytes = 0;
    this.#syncing = this.#file.sync();
    this.#syncing.catch(() => {}); // told by the next one, or at the end
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#last.then(step);
    this.#last = result;
    result.catch(() => {}); // told to whoever asked, and by every later step
    return result;
  }

  async #write(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    const isHoleLast = await writeSparsely(this.#file, bytes, offsetBytes);
    if (isHoleLast) await this.#file.truncate(offsetBytes + bytes.length);
  }
}
