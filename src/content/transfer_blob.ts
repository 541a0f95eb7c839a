import { dirname } from "node:path";
import { type ErrorCode, ShimError, toShimError } from "../errors.ts";
import { type Access, type DirectorySync, setAccess, syncDirectory, unlinkIfThere } from "../host/durable.ts";
import { type FileSystem, nodeFileSystem, type OpenFile } from "../host/file_system.ts";
import { requireFreeSpace } from "../host/free_space.ts";
import { toIoError } from "../host/io_error.ts";
import { HOLE_BYTES } from "../host/sparse_writer.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm } from "../image/digest.ts";
import type { OpenContent } from "../image/image_source.ts";
import { BlobBlocks } from "./blob_blocks.ts";
import { openOnThread } from "./blob_thread.ts";
import { BlobWriter, throwIfAborted } from "./blob_writer.ts";
import { digestMismatch, type IngestOptions } from "./ingest.ts";
import { partialPaths, removePartial, resumableBytes, withPartial } from "./partial.ts";

/** Fewer bytes are fetched again as fast as they are found. */
const LEAST_USEFUL_BYTES = 4096;
/** Smaller blobs are hashed and written by the main loop, in less time than a thread takes to begin. */
const LEAST_THREADED_BYTES = 16 * 1024 * 1024;

export type TransferPlace = {
  readonly ingestDirectory: string;
  /** Where the blob goes, on the same file system. */
  readonly blobPath: string;
  readonly access: Access;
  readonly fileSystem: FileSystem;
};

export type BlobTransfer = {
  /** Bytes that the source gave in this call: not those that an earlier one had left. */
  readonly receivedBytes: number;
  readonly directorySync: DirectorySync;
};

/**
 * Brings a blob in, for who holds its lock: continues what an interrupted transfer left (hashed again, never believed),
 * verifies all of it, makes it durable, and only then gives it its name. When the bytes turn out to be wrong, whoever
 * spoiled them, they are dropped and fetched once more in full.
 *
 * What came stays for the next call whenever nothing speaks against it: when the failure passes by itself, when it is a
 * cancellation, and when the source refuses to go on, because a login can be renewed. Wrong bytes and a failing disk
 * leave nothing. (When only syncing the blob's directory fails, the verified blob stays, because by then others may count on
 * it.) A failed fsync is final: the file is dropped.
 *
 * @param open may be called twice
 * @throws {ShimError} CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, NO_SPACE, CANCELLED; what the stream fails with
 *   and errno errors pass
 */
export async function transferBlob(
  descriptor: Descriptor,
  open: OpenContent,
  options: TransferPlace & IngestOptions,
): Promise<BlobTransfer> {
  const { ingestDirectory, blobPath, access, fileSystem, signal } = options;
  const { digest } = descriptor;
  const paths = partialPaths(ingestDirectory, digest);
  let receivedBytes = 0;
  const fill = () =>
    withPartial(paths, { descriptor, fileSystem }, async (file, presentBytes) => {
      const filled = await fillFile(file, { descriptor, open, presentBytes, path: paths.data, ...options });
      receivedBytes += filled.receivedBytes;
      if (filled.digest === digest) {
        await setAccess(file, access);
        await file.sync();
      }
      return filled.digest;
    });
  const dropUseless = async (error: unknown) => {
    const isUseful = isResumable(error) &&
      await resumableBytes(paths, descriptor, fileSystem) >= LEAST_USEFUL_BYTES;
    if (!isUseful) await removePartial(paths, fileSystem);
  };
  try {
    const sizeBytes = descriptor.sizeBytes - await resumableBytes(paths, descriptor, fileSystem);
    await requireFreeSpace(ingestDirectory, { sizeBytes, action: `ingest blob "${digest}"`, fileSystem });
    let actual = await fill().catch(ifChanged);
    if (actual !== digest) {
      await removePartial(paths, fileSystem);
      actual = await fill();
    }
    if (actual !== digest) throw digestMismatch(descriptor, actual);
    throwIfAborted(signal);
    await options.beforeCommit?.();
    // A blob that has its name needs no metadata; between these two steps a crash costs the transfer, no more.
    await unlinkIfThere(paths.metadata, fileSystem);
    await fileSystem.rename(paths.data, blobPath);
  } catch (error) {
    // The first failure is the one to tell. What even now stays behind is swept or continued later.
    await dropUseless(error).catch(() => {});
    throw error;
  }
  return { receivedBytes, directorySync: await syncDirectory(dirname(blobPath), fileSystem) };
}

/** A source that says itself that it went on with something else gives wrong bytes, too. */
function ifChanged(error: unknown): undefined {
  if (toShimError(error).details["isChanged"] !== true) throw error;
}

async function fillFile(
  file: OpenFile,
  { descriptor, open, presentBytes, path, fileSystem, signal, onProgress }: IngestOptions & {
    readonly descriptor: Descriptor;
    readonly open: OpenContent;
    readonly presentBytes: number;
    readonly path: string;
    readonly fileSystem: FileSystem;
  },
): Promise<{ digest: Digest; receivedBytes: number }> {
  const { sizeBytes } = descriptor;
  const algorithm = digestAlgorithm(descriptor.digest);
  // A thread costs some 40 ms; and it has a file system of its own, which a test cannot make fail.
  const taker = sizeBytes >= LEAST_THREADED_BYTES && fileSystem === nodeFileSystem
    ? await openOnThread(path, { file, algorithm })
    : new BlobBlocks(file, algorithm);
  try {
    const writer = new BlobWriter(taker, descriptor);
    // What follows the last whole block of the file system is cut off, unless that is all.
    const prefixBytes = presentBytes === sizeBytes ? presentBytes : presentBytes - presentBytes % HOLE_BYTES;
    await writer.takePresent(prefixBytes, { signal, onProgress });
    if (prefixBytes < presentBytes) await file.truncate(prefixBytes);
    const startByte = writer.takenBytes;
    if (startByte < sizeBytes || startByte === 0) {
      throwIfAborted(signal);
      await writer.takeStream(await open(startByte), { signal, onProgress });
    }
    return { digest: await writer.finish(), receivedBytes: writer.takenBytes - startByte };
  } finally {
    // A failed sync goes before whatever stopped the transfer: what came must not be gone on with.
    await taker.close();
  }
}

/** A source that says no says nothing about the bytes it gave before. */
function isRefusal(code: ErrorCode): boolean {
  return /^(REGISTRY|REDIRECT|REALM|CREDENTIALS)_/.test(code);
}

/**
 * Whether what came may be continued by another call. A cancelled transfer's reason decides: whoever stops it because
 * the image as a whole turned out to be wrong wants nothing of it kept.
 */
function isResumable(error: unknown): boolean {
  const { code, cause, details, retryable } = toShimError(toIoError(error, { action: "", path: "" }));
  if (code === "CANCELLED") return !(cause instanceof ShimError) || isResumable(cause);
  if (retryable || isRefusal(code)) return true;
  // A source that ended too early may be whole the next time; what it gave then does.
  const { receivedBytes, expectedBytes } = details;
  return code === "CONTENT_SIZE_MISMATCH" && Number(receivedBytes) < Number(expectedBytes);
}
