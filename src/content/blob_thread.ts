import { Worker } from "node:worker_threads";
import { ShimError } from "../errors.ts";
import type { OpenFile } from "../host/file_system.ts";
import type { BlockTaker } from "./blob_blocks.ts";
import type { BlobReply, BlobRequest, BlobResult } from "./blob_requests.ts";

const ENTRY = new URL("./blob_worker.ts", import.meta.url);

/** One for all blobs of the process, while there are any: one hashes faster than networks bring bytes. */
let current: BlobThread | undefined;

/**
 * Has a blob's blocks hashed and written by a thread of its own, so that the main loop only reads the network. The thread
 * begins with the first blob and ends with the last.
 *
 * @param path of `file`, which stays the caller's
 * @returns what has to be closed
 * @throws {ShimError} INTERNAL when the thread is lost, here and in the taker's calls; errno errors pass
 */
export async function openOnThread(
  path: string,
  { file, algorithm, entry = ENTRY }: {
    readonly file: OpenFile;
    readonly algorithm: string;
    /** Another one is for tests. */
    readonly entry?: URL;
  },
): Promise<BlockTaker> {
  const { inode } = await file.status();
  const thread = current ??= new BlobThread(entry);
  return new ThreadedBlocks(thread, { path, inode, algorithm });
}

/**
 * Begins the thread before the first blob, and keeps it between blobs, for a service: to begin it keeps the main loop for
 * some 40 ms.
 *
 * @returns lets it end with the blobs that it has then
 */
export function holdBlobThread(): () => void {
  const thread = current ??= new BlobThread(ENTRY);
  thread.enter();
  return () => thread.leave();
}

class ThreadedBlocks implements BlockTaker {
  readonly atOnce = 4;
  readonly #thread: BlobThread;
  readonly #file: number;
  readonly #opened: Promise<BlobResult>;
  readonly #blocks: SharedArrayBuffer[] = [];

  constructor(
    thread: BlobThread,
    place: { readonly path: string; readonly inode: number; readonly algorithm: string },
  ) {
    this.#thread = thread;
    this.#file = thread.enter();
    this.#opened = this.#thread.ask({ file: this.#file, kind: "open", ...place });
    this.#opened.catch(() => {}); // told by the first call
  }

  /** Shared, not handed to and fro: what moves between threads counts as new garbage in each of them. */
  makeBlock(lengthBytes: number): Uint8Array {
    const memory = new SharedArrayBuffer(lengthBytes);
    this.#blocks.push(memory);
    this.#thread.ask({ file: this.#file, kind: "block", memory }).catch(() => {}); // told by "take"
    return new Uint8Array(memory);
  }

  async take({ buffer, length: lengthBytes }: Uint8Array, offsetBytes: number): Promise<void> {
    const block = this.#blocks.findIndex((each) => each === buffer);
    const taken = this.#thread.ask({ file: this.#file, kind: "take", block, lengthBytes, offsetBytes });
    await this.#after(taken, (result) => result === null);
  }

  async takePresent(offsetBytes: number, lengthBytes: number): Promise<number> {
    const taken = this.#thread.ask({ file: this.#file, kind: "takePresent", offsetBytes, lengthBytes });
    return await this.#after(taken, (result) => typeof result === "number");
  }

  async hexDigest(): Promise<string> {
    const digest = this.#thread.ask({ file: this.#file, kind: "hexDigest" });
    return await this.#after(digest, (result) => typeof result === "string");
  }

  async close(): Promise<void> {
    try {
      // When the thread is lost, nobody knows what became of its syncs.
      await this.#thread.ask({ file: this.#file, kind: "close" });
    } finally {
      this.#thread.leave();
    }
  }

  async #after<T extends BlobResult>(
    asked: Promise<BlobResult>,
    isExpected: (result: BlobResult) => result is T,
  ): Promise<T> {
    asked.catch(() => {}); // what opening failed with is the cause
    await this.#opened;
    const result = await asked;
    if (isExpected(result)) return result;
    throw new ShimError("INTERNAL", "Cannot ingest blob: the thread's answer is of another shape");
  }
}

type Asked = { readonly settle: (result: BlobResult) => void; readonly reject: (error: unknown) => void };

/** Any of the requests, without the number that the thread gives it. */
type Unnumbered<Request = BlobRequest> = Request extends unknown ? Omit<Request, "id"> : never;

class BlobThread {
  readonly #worker: Worker;
  readonly #asked = new Map<number, Asked>();
  #lastId = 0;
  #users = 0;
  #loss: ShimError | undefined;

  constructor(entry: URL) {
    this.#worker = new Worker(entry);
    this.#worker.on("message", (reply: BlobReply) => this.#receive(reply));
    this.#worker.on("error", (error) => this.#lose("it failed", error));
    this.#worker.on("messageerror", (error) => this.#lose("it sent what cannot be read", error));
    this.#worker.on("exit", () => this.#lose("it ended"));
  }

  /** @returns the number of a new file. Leave at its end. */
  enter(): number {
    this.#users += 1;
    this.#lastId += 1;
    return this.#lastId;
  }

  leave(): void {
    this.#users -= 1;
    if (this.#users > 0) return;
    if (current === this) current = undefined;
    void this.#worker.terminate();
  }

  ask(request: Unnumbered): Promise<BlobResult> {
    if (this.#loss !== undefined) return Promise.reject(this.#loss);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((settle, reject) => {
      this.#asked.set(id, { settle, reject });
      this.#worker.postMessage({ ...request, id });
    });
  }

  #receive(reply: BlobReply): void {
    const asked = this.#asked.get(reply.id);
    this.#asked.delete(reply.id);
    if (reply.kind === "result") return asked?.settle(reply.result);
    const { message, code } = reply;
    asked?.reject(
      code === null
        ? new ShimError("INTERNAL", `Cannot ingest blob: ${message}`)
        : Object.assign(new Error(message), { code }),
    );
  }

  #lose(why: string, cause?: unknown): void {
    if (current === this) current = undefined;
    this.#loss ??= new ShimError("INTERNAL", `Cannot ingest blob: the thread that writes is lost: ${why}`, {
      cause,
    });
    for (const { reject } of this.#asked.values()) reject(this.#loss);
    this.#asked.clear();
  }
}
