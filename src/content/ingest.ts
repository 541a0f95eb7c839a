import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { type Access, type DirectorySync, setAccess, syncDirectory, unlinkIfThere } from "../host/durable.ts";
import { CREATE_NEW, type FileSystem, withOpenFile } from "../host/file_system.ts";
import { requireFreeSpace } from "../host/free_space.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { BlobBlocks } from "./blob_blocks.ts";
import { BlobWriter, throwIfAborted } from "./blob_writer.ts";

export type IngestOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told after every chunk how many bytes have come so far. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
  /** Called when the blob is verified and safe on disk; it becomes visible when this resolves, and is discarded when not. */
  readonly beforeCommit?: (() => Promise<void>) | undefined;
};

export type IngestPlace = {
  readonly ingestDirectory: string;
  readonly blobDirectory: string;
  readonly access: Access;
  readonly fileSystem: FileSystem;
};

/**
 * The write transaction: what `stream` gives lies in the blob directory under its digest, complete, verified
 * and durable, or nothing has changed there. (One exception: when only syncing the directory fails, the
 * verified blob stays, because by then another process may count on it.) Memory does not depend on the size.
 * The stream is used up or cancelled.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, NO_SPACE, CANCELLED; what the stream
 *   fails with and errno errors pass
 */
export async function ingestBlob(
  descriptor: Descriptor,
  stream: ReadableStream<Uint8Array>,
  options: IngestPlace & IngestOptions,
): Promise<DirectorySync> {
  const { ingestDirectory, blobDirectory, access, fileSystem, signal, onProgress } = options;
  const { digest, sizeBytes } = descriptor;
  const name = `${digestAlgorithm(digest)}-${digestEncoded(digest)}.${randomBytes(8).toString("hex")}`;
  const temporaryPath = join(ingestDirectory, name);
  try {
    await requireFreeSpace(ingestDirectory, { sizeBytes, action: `ingest blob "${digest}"`, fileSystem });
    await withOpenFile(temporaryPath, { flags: CREATE_NEW, fileSystem }, async (file) => {
      const writer = new BlobWriter(new BlobBlocks(file, digestAlgorithm(digest)), descriptor);
      await writer.takeStream(stream, { signal, onProgress });
      const actual = await writer.finish();
      if (actual !== digest) throw digestMismatch(descriptor, actual);
      await setAccess(file, access);
      await file.sync();
    });
    throwIfAborted(signal);
    await options.beforeCommit?.();
    await fileSystem.rename(temporaryPath, join(blobDirectory, digestEncoded(digest)));
  } catch (error) {
    // The first failure is the one to tell. What even now stays behind is swept when the store is next
    // opened.
    await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
    throw error;
  } finally {
    // Not locked when the transaction did not come to it; a stream that was read has nothing left to cancel.
    if (!stream.locked) stream.cancel().catch(() => {});
  }
  return await syncDirectory(blobDirectory, fileSystem);
}

export function digestMismatch({ digest, sizeBytes }: Descriptor, actual: Digest): ShimError {
  return new ShimError(
    "CONTENT_DIGEST_MISMATCH",
    `Cannot ingest blob "${digest}": the ${sizeBytes} bytes received hash to "${actual}"`,
    { details: { digest, actual } },
  );
}
