import { ShimError } from "../errors.ts";
import {
  effectiveUserId,
  type FileStatus,
  type FileSystem,
  type OpenFile,
  READ_EXISTING,
  type SmallFile,
  type SmallStatus,
} from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";

/**
 * Bytes of one chunk of {@link streamBlob}: large enough to keep the number of reads low, small enough to
 * interleave.
 */
const CHUNK_BYTES = 256 * 1024;

export type OpenBlobOptions = {
  readonly digest: Digest;
  /** What is wrong with a file that is there, if anything. */
  readonly flawOf: (status: FileStatus) => string | undefined;
  readonly fileSystem: FileSystem;
};

/**
 * Opens a layout's blob for reading; never through a link, never anything but a regular file. The caller
 * closes it.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when there is none; CONTENT_CORRUPT when what is there cannot be it;
 *   errno errors pass
 */
export async function openBlobFile(path: string, options: OpenBlobOptions): Promise<OpenFile> {
  const { digest, flawOf, fileSystem } = options;
  let file: OpenFile;
  try {
    file = await fileSystem.open(path, READ_EXISTING);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT") throw blobMissing(digest, path);
    // ENXIO: a socket.
    if (errno === "ELOOP" || errno === "ENXIO") {
      throw blobCorrupt(digest, { path, why: "it is no regular file", cause: error });
    }
    throw error;
  }
  try {
    const status = await file.status();
    const flaw = status.kind === "file" ? flawOf(status) : "it is no regular file";
    if (flaw !== undefined) throw blobCorrupt(digest, { path, why: flaw });
    return file;
  } catch (error) {
    await file.close().catch(() => {}); // only read from: the flaw is the news
    throw error;
  }
}

export type ReadBlobOptions = Pick<OpenBlobOptions, "digest" | "fileSystem"> & {
  readonly flawOf: (status: SmallStatus) => string | undefined;
  readonly maxBytes: number;
};

/**
 * {@link openBlobFile} for a document: its bytes at once.
 *
 * @returns undefined for one of over `maxBytes`
 */
export async function readBlobDocument(
  path: string,
  { digest, flawOf, fileSystem, maxBytes }: ReadBlobOptions,
): Promise<Uint8Array | undefined> {
  let found: SmallFile;
  try {
    found = await fileSystem.readSmall(path, maxBytes);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT") throw blobMissing(digest, path);
    // ENXIO: a socket.
    if (errno === "ELOOP" || errno === "ENXIO") {
      throw blobCorrupt(digest, { path, why: "it is no regular file", cause: error });
    }
    throw error;
  }
  const flaw = found.status.kind === "file" ? flawOf(found.status) : "it is no regular file";
  if (flaw !== undefined) throw blobCorrupt(digest, { path, why: flaw });
  return found.bytes ?? undefined;
}

/** @param place where it was looked for */
export function blobMissing(digest: Digest, place: string): ShimError {
  return new ShimError("IMAGE_NOT_FOUND", `Cannot open blob "${digest}": it is not there, at "${place}"`, {
    details: { digest, path: place },
  });
}

/** What a blob that no longer is what its name says is called. */
export function blobCorrupt(
  digest: Digest,
  found: { path: string; why: string; cause?: unknown },
): ShimError {
  const { path, why, cause } = found;
  return new ShimError("CONTENT_CORRUPT", `Cannot use blob "${digest}" at "${path}": ${why}`, {
    cause,
    details: { remedy: "pull the image again, which replaces the blob", digest, path },
  });
}

/** The first `maxBytes` of a file, or all of a shorter one. */
export async function readUpTo(file: Pick<OpenFile, "read">, maxBytes: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(maxBytes);
  return buffer.subarray(0, await file.read(buffer, 0));
}

export type StreamBlobOptions = {
  /** Where in the file to begin; default 0. */
  readonly startByte?: number;
  readonly maxBytes: number;
  readonly beforeRead: () => void;
  readonly translate: (error: unknown) => unknown;
};

/**
 * A file's bytes from `startByte` on, at most `maxBytes`, as they are asked for. The stream owns the file: it is
 * closed at the end, on failure and on cancel.
 *
 * @param options.beforeRead throws to end the stream
 * @param options.translate makes the stream's error of an errno error
 */
export function streamBlob(
  file: Pick<OpenFile, "read" | "close">,
  options: StreamBlobOptions,
): ReadableStream<Uint8Array> {
  const { startByte = 0, maxBytes, beforeRead, translate } = options;
  let offsetBytes = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        beforeRead();
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, maxBytes - offsetBytes));
        const readBytes = await file.read(chunk, startByte + offsetBytes);
        offsetBytes += readBytes;
        if (readBytes > 0) controller.enqueue(chunk.subarray(0, readBytes));
        if (readBytes < chunk.length || offsetBytes === maxBytes) {
          await file.close();
          controller.close();
        }
      } catch (error) {
        await file.close().catch(() => {}); // the first failure is the one to tell
        throw translate(error);
      }
    },
    cancel: () => file.close(),
  }, { highWaterMark: 0 });
}

/**
 * What is wrong with a file that should be a blob of our own cache. QEMU's user owning it is libvirt's doing, and means
 * that a guest's QEMU could have changed it.
 */
export function flawOfOwnBlob(
  { sizeBytes, ownerId, mode }: SmallStatus,
  descriptor: Pick<Descriptor, "sizeBytes">,
): string | undefined {
  if (sizeBytes !== descriptor.sizeBytes) {
    return `it has ${sizeBytes} bytes, must have ${descriptor.sizeBytes} bytes`;
  }
  if (ownerId !== effectiveUserId()) {
    return `it is owned by user ${ownerId}, must be owned by user ${effectiveUserId()}`;
  }
  if ((mode & 0o022) !== 0) return "it can be written by group or others, must be read-only";
  return undefined;
}
