import { dirname } from "node:path";
import { ShimError, toShimError } from "../errors.ts";
import type { Access, DirectorySync } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { type HeldLock, withLock } from "../host/flock.ts";
import { startHeartbeat } from "../host/heartbeat.ts";
import { toIoError, withIoErrors } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { OpenContent, VerifiedDocument } from "../image/image_source.ts";
import { blobLockPath, lockBlob } from "./blob_lock.ts";
import type { DurableNames } from "./durable_names.ts";
import { ingestBlob, type IngestOptions } from "./ingest.ts";
import { partialPaths, resumableBytes } from "./partial.ts";
import { blobPathIn, LOCK_TIMEOUT_MS, type StorePaths } from "./store_layout.ts";
import { type BlobTransfer, transferBlob } from "./transfer_blob.ts";
import { parseFailure, readTransferFailure, toError, writeTransferFailure } from "./transfer_failure.ts";

export type LockBlobsOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told how far another process has come with a blob that this one waits for. */
  readonly onProgress?: ((digest: Digest, doneBytes: number) => void) | undefined;
  /** Where the bytes come from, in whatever words: processes that name the same source share its permanent failures. */
  readonly source?: string | undefined;
  /** How long the holder of a lock may show no sign of life, milliseconds; default a minute. */
  readonly stallMs?: number | undefined;
};

export type BlobTransfersOptions = {
  readonly paths: StorePaths;
  readonly access: Access;
  readonly fileSystem: FileSystem;
  readonly durableNames: DurableNames;
  readonly hasBlob: (descriptor: Descriptor) => Promise<boolean>;
  /** Told of each blob that was brought in, when it is there. */
  readonly onStored: (digest: Digest) => Promise<void>;
  /** Told how each blob's directory was synced. */
  readonly note: (sync: DirectorySync) => void;
};

/** Blobs that only this process brings in now, one transfer each. Valid inside the body it was given to. */
export interface LockedBlobs {
  /** Those that were not there once their locks were held, each digest once. */
  readonly missing: readonly Descriptor[];
  /** How many bytes of them have still to come. @throws {ShimError} BUSY, IO_ERROR */
  missingBytes(): Promise<number>;
  /** Throws as {@link transferBlob} does, and BUSY, IO_ERROR for errno errors. */
  ingest(descriptor: Descriptor, open: OpenContent, options?: IngestOptions): Promise<BlobTransfer>;
}

/**
 * One transfer for each blob on this host, however many processes ask: who holds the blob's lock moves its bytes, the
 * others watch. A killed holder's lock is free at once, and the next one goes on where it stopped. A permanent failure
 * is left in the lock file, so that those who waited through it give up with it instead of trying one after the other;
 * but only those who ask the same source, because what one registry refuses another may have.
 */
export class BlobTransfers {
  readonly #options: BlobTransfersOptions;

  constructor(options: BlobTransfersOptions) {
    this.#options = options;
  }

  /**
   * Runs `body` while holding the locks of all blobs that are missing. They are taken in the order of their digests, so
   * that two who want the same blobs never wait for each other, and are held to the end of the body.
   *
   * @throws {ShimError} LOCK_TIMEOUT when a holder shows no sign of life; CANCELLED; what a holder failed with for good;
   *   NO_SPACE, BUSY, IO_ERROR. What `body` throws passes.
   */
  async withLocks<T>(
    descriptors: readonly Descriptor[],
    options: LockBlobsOptions,
    body: (locked: LockedBlobs) => Promise<T>,
  ): Promise<T> {
    const context = { action: "ingest blobs", path: this.#options.paths.ingest };
    return await withIoErrors(context, () => this.#withLocks(descriptors, options, body));
  }

  /** {@link withLocks} and a transfer, for a single blob. */
  async ingest(
    descriptor: Descriptor,
    open: OpenContent,
    options: IngestOptions & Pick<LockBlobsOptions, "source" | "stallMs"> = {},
  ): Promise<{ readonly receivedBytes: number }> {
    const { signal, onProgress, source, stallMs } = options;
    if (await this.#isThere(descriptor)) return { receivedBytes: 0 };
    const watch = {
      signal,
      source,
      stallMs,
      onProgress: (_: Digest, doneBytes: number) => onProgress?.(doneBytes),
    };
    return await this.withLocks([descriptor], watch, async ({ missing, ingest }) => {
      return missing.length === 0 ? { receivedBytes: 0 } : await ingest(descriptor, open, options);
    });
  }

  /**
   * Takes in what is in memory already, in this order: there is no transfer to share or to continue. Of what was there
   * before, too, the names are durable when this resolves. A failure leaves those before it.
   */
  async ingestBytes(documents: readonly VerifiedDocument[], options: IngestOptions): Promise<void> {
    const { paths, access, fileSystem, note } = this.#options;
    const unsynced = new Set<Digest>();
    for (const { descriptor, bytes } of documents) {
      const path = blobPathIn(paths.blobs, descriptor.digest);
      if (await this.#options.hasBlob(descriptor)) {
        unsynced.add(descriptor.digest);
        continue;
      }
      const place = { ingestDirectory: paths.ingest, blobDirectory: dirname(path), access, fileSystem };
      const lock = {
        mode: "shared",
        timeoutMs: LOCK_TIMEOUT_MS,
        signal: options.signal,
        fileSystem,
      } as const;
      await withIoErrors(
        { action: `ingest blob "${descriptor.digest}"`, path },
        () =>
          withLock(paths.ingestLock, lock, async () => {
            note(await ingestBlob(descriptor, streamOf(bytes), { ...place, ...options }));
          }),
      );
    }
    await this.syncNames([...unsynced]);
  }

  /** Makes the names of blobs that are there durable: whoever stored them may not have come to this step yet. */
  async syncNames(digests: readonly Digest[]): Promise<void> {
    const { paths, durableNames, note } = this.#options;
    const context = { action: "ingest blobs", path: paths.blobs };
    const settling = () => durableNames.settle(digests.map((digest) => blobPathIn(paths.blobs, digest)));
    for (const outcome of await withIoErrors(context, settling)) note(outcome);
  }

  async #isThere(descriptor: Descriptor): Promise<boolean> {
    if (!await this.#options.hasBlob(descriptor)) return false;
    await this.syncNames([descriptor.digest]);
    return true;
  }

  async #withLocks<T>(
    descriptors: readonly Descriptor[],
    options: LockBlobsOptions,
    body: (locked: LockedBlobs) => Promise<T>,
  ): Promise<T> {
    const wanted = new Map(descriptors.map((each) => [each.digest, each]));
    const inOrder = [...wanted.values()].sort((a, b) => a.digest < b.digest ? -1 : 1);
    const known = new Map<Digest, string | undefined>();
    for (const { digest } of inOrder) known.set(digest, await this.#failureId(digest));
    const held = new Map<Digest, HeldBlob>();
    try {
      for (const descriptor of inOrder) {
        const lock = await lockBlob(descriptor, { ...this.#options, ...options });
        if (!lock) continue;
        held.set(descriptor.digest, { descriptor, lock, stopHeartbeat: startHeartbeat(lock.file.fd) });
        if (await this.#options.hasBlob(descriptor)) {
          await release(held, descriptor.digest);
          continue;
        }
        const failure = await parseFailure(lock.file);
        const isNew = failure !== undefined && failure.id !== known.get(descriptor.digest);
        if (isNew && failure.source === options.source) throw toError(failure);
      }
      return await body(this.#lockedBlobs(held, options));
    } finally {
      for (const digest of [...held.keys()]) await release(held, digest);
    }
  }

  #lockedBlobs(held: ReadonlyMap<Digest, HeldBlob>, { source }: LockBlobsOptions): LockedBlobs {
    const { paths, fileSystem } = this.#options;
    return {
      missing: [...held.values()].map(({ descriptor }) => descriptor),
      missingBytes: () =>
        withIoErrors({ action: "look for interrupted transfers", path: paths.ingest }, async () => {
          let sumBytes = 0;
          for (const { descriptor } of held.values()) {
            const partial = partialPaths(paths.ingest, descriptor.digest);
            sumBytes += descriptor.sizeBytes - await resumableBytes(partial, descriptor, fileSystem);
          }
          return sumBytes;
        }),
      ingest: async (descriptor, open, options = {}) => {
        const blob = held.get(descriptor.digest);
        if (!blob) throw new Error(`The lock of blob "${descriptor.digest}" is not held`);
        return await this.#transfer(blob, open, { ...options, source });
      },
    };
  }

  async #transfer(
    { descriptor, lock }: HeldBlob,
    open: OpenContent,
    { source, ...options }: IngestOptions & { readonly source: string | undefined },
  ): Promise<BlobTransfer> {
    const { paths, access, fileSystem, note } = this.#options;
    const blobPath = blobPathIn(paths.blobs, descriptor.digest);
    // What the others' gate says of the image as a whole says nothing of this blob.
    let isDecidedElsewhere = false;
    const beforeCommit = async () => {
      isDecidedElsewhere = true;
      await options.beforeCommit?.();
      isDecidedElsewhere = false;
      if (!await lock.isCurrent()) throw lockLost(descriptor);
    };
    try {
      const place = { ingestDirectory: paths.ingest, blobPath, access, fileSystem };
      const transfer = await transferBlob(descriptor, open, { ...place, ...options, beforeCommit });
      note(transfer.directorySync);
      await this.#options.onStored(descriptor.digest);
      return transfer;
    } catch (error) {
      const failure = toIoError(error, { action: `ingest blob "${descriptor.digest}"`, path: blobPath });
      const { retryable, code } = toShimError(failure);
      if (!retryable && code !== "CANCELLED" && !isDecidedElsewhere && source !== undefined) {
        // A hint for those who wait: without it they try for themselves.
        await writeTransferFailure(lock.file, { source, error: toShimError(failure) }).catch(() => {});
      }
      throw failure;
    }
  }

  async #failureId(digest: Digest): Promise<string | undefined> {
    return (await readTransferFailure(this.#lockPath(digest), this.#options.fileSystem))?.id;
  }

  #lockPath(digest: Digest): string {
    return blobLockPath(this.#options.paths, digest);
  }
}

type HeldBlob = {
  readonly descriptor: Descriptor;
  readonly lock: HeldLock;
  readonly stopHeartbeat: () => void;
};

async function release(held: Map<Digest, HeldBlob>, digest: Digest): Promise<void> {
  const blob = held.get(digest);
  held.delete(digest);
  blob?.stopHeartbeat();
  await blob?.lock.release();
}

function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    start(controller) {
      if (bytes.length > 0) controller.enqueue(bytes);
      controller.close();
    },
  });
}

function lockLost({ digest }: Descriptor): ShimError {
  return new ShimError(
    "BUSY",
    `Cannot ingest blob "${digest}": its lock file was removed or replaced meanwhile`,
    { details: { remedy: "try again, and leave the files in locks/ alone" } },
  );
}
