import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { ShimError } from "../errors.ts";
import type { FileStatus, FileSystem } from "../host/file_system.ts";
import { type HeldLock, waitForLock } from "../host/flock.ts";
import { errnoOf } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { partialPaths } from "./partial.ts";
import type { StorePaths } from "./store_layout.ts";

/** A holder that gives no sign of life for so long is stopped, or stuck in the kernel. */
const STALL_MS = 60_000;
/** Between two looks at another's transfer: seldom enough for any number of waiters. */
const LONGEST_PAUSE_MS = 200;
const LONGEST_LOOK_MS = 5 * LONGEST_PAUSE_MS;

export type LockBlobOptions = {
  readonly paths: StorePaths;
  readonly fileSystem: FileSystem;
  readonly hasBlob: (descriptor: Descriptor) => Promise<boolean>;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((digest: Digest, doneBytes: number) => void) | undefined;
  readonly stallMs?: number | undefined;
};

/** The lock of one blob's transfer: kept for ever, as all lock files are. */
export function blobLockPath({ ingestLock }: StorePaths, digest: Digest): string {
  return join(dirname(ingestLock), `blob-${digestAlgorithm(digest)}-${digestEncoded(digest)}`);
}

/**
 * Waits for the right to bring a blob in, for as long as whoever has it lives: its heartbeat on the lock file tells, or
 * its partial file, which grows. That file also tells how far it has come.
 *
 * @returns undefined when the blob came while this waited
 * @throws {ShimError} LOCK_TIMEOUT when the holder shows no sign of life; CANCELLED, NO_SPACE, BUSY, IO_ERROR
 */
export async function lockBlob(
  descriptor: Descriptor,
  options: LockBlobOptions,
): Promise<HeldLock | undefined> {
  const { paths, fileSystem, hasBlob, signal, onProgress, stallMs = STALL_MS } = options;
  const { digest, sizeBytes } = descriptor;
  const path = blobLockPath(paths, digest);
  const watch = new HolderWatch([path, partialPaths(paths.ingest, digest).data], fileSystem);
  return await waitForLock(path, {
    mode: "exclusive",
    timeoutMs: Infinity,
    longestPauseMs: LONGEST_PAUSE_MS,
    signal,
    fileSystem,
    isWorthWaiting: async () => {
      if (await hasBlob(descriptor)) return false;
      const { silentMs, doneBytes, hasMoved } = await watch.look();
      if (hasMoved) onProgress?.(digest, Math.min(doneBytes, sizeBytes));
      if (silentMs > stallMs) throw holderStalled(descriptor, { path, stallMs });
      return true;
    },
  });
}

/** Looks from outside whether somebody who holds a blob's lock still lives, and how far it has come. */
class HolderWatch {
  readonly #lockPath: string;
  readonly #dataPath: string;
  readonly #fileSystem: FileSystem;
  #seen = "";
  #lookedMs = performance.now();
  #silentMs = 0;
  #doneBytes = 0;

  constructor([lockPath, dataPath]: [string, string], fileSystem: FileSystem) {
    this.#lockPath = lockPath;
    this.#dataPath = dataPath;
    this.#fileSystem = fileSystem;
  }

  /** `silentMs`: for how long nothing has changed, as far as this watch has looked. */
  async look(): Promise<{ silentMs: number; doneBytes: number; hasMoved: boolean }> {
    const lock = await this.#statusOf(this.#lockPath);
    const data = await this.#statusOf(this.#dataPath);
    const doneBytes = data?.sizeBytes ?? 0;
    const hasMoved = doneBytes !== this.#doneBytes;
    this.#doneBytes = doneBytes;
    const now = `${lock?.inode} ${lock?.modifiedMs} ${data?.inode} ${doneBytes}`;
    // When this process, too, was stopped between two looks, the time says nothing about the other one.
    const passedMs = Math.min(performance.now() - this.#lookedMs, LONGEST_LOOK_MS);
    this.#lookedMs = performance.now();
    this.#silentMs = now === this.#seen ? this.#silentMs + passedMs : 0;
    this.#seen = now;
    return { silentMs: this.#silentMs, doneBytes, hasMoved };
  }

  async #statusOf(path: string): Promise<FileStatus | undefined> {
    try {
      return await this.#fileSystem.lstat(path);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }
}

function holderStalled(
  { digest }: Descriptor,
  { path, stallMs }: { readonly path: string; readonly stallMs: number },
): ShimError {
  return new ShimError(
    "LOCK_TIMEOUT",
    `Cannot ingest blob "${digest}": another process holds its lock and has shown no sign of life for ${stallMs} ms`,
    { details: { remedy: "`lslocks` shows which one; end it or let it go on", path, stallMs } },
  );
}
