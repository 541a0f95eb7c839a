import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { type Access, type DirectorySync, setAccess, syncDirectory, unlinkIfThere } from "../host/durable.ts";
import { CREATE_NEW, type FileSystem, type OpenFile, withOpenFile } from "../host/file_system.ts";
import { requireFreeSpace } from "../host/free_space.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { digestAlgorithm, digestEncoded, digestOf } from "../image/digest.ts";
import { writeSparsely } from "../host/sparse_writer.ts";

/**
 * Bytes collected before they are hashed and written: one step keeps the main loop for about a millisecond.
 */
const BLOCK_BYTES = 1024 * 1024;

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
  const { ingestDirectory, blobDirectory, access, fileSystem } = options;
  const { digest, sizeBytes } = descriptor;
  const name = `${digestAlgorithm(digest)}-${digestEncoded(digest)}.${randomBytes(8).toString("hex")}`;
  const temporaryPath = join(ingestDirectory, name);
  const chunks = readChunks(stream, options.signal);
  try {
    await requireFreeSpace(ingestDirectory, { sizeBytes, action: `ingest blob "${digest}"`, fileSystem });
    await withOpenFile(temporaryPath, { flags: CREATE_NEW, fileSystem }, async (file) => {
      await writeVerified(file, chunks, { descriptor, onProgress: options.onProgress });
      await setAccess(file, access);
      await file.sync();
    });
    throwIfAborted(options.signal);
    await options.beforeCommit?.();
    await fileSystem.rename(temporaryPath, join(blobDirectory, digestEncoded(digest)));
  } catch (error) {
    // The first failure is the one to tell. What even now stays behind is swept when the store is next
    // opened.
    await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
    throw error;
  } finally {
    chunks.stop();
  }
  return await syncDirectory(blobDirectory, fileSystem);
}

async function writeVerified(
  file: OpenFile,
  chunks: AsyncIterable<Uint8Array>,
  { descriptor, onProgress }: { descriptor: Descriptor; onProgress: IngestOptions["onProgress"] },
): Promise<void> {
  const { digest, sizeBytes } = descriptor;
  const algorithm = digestAlgorithm(digest);
  const hash = createHash(algorithm);
  const block = new Uint8Array(BLOCK_BYTES);
  let filled = 0;
  let writtenBytes = 0;
  const flush = async () => {
    const bytes = block.subarray(0, filled);
    hash.update(bytes);
    await writeSparsely(file, bytes, writtenBytes);
    writtenBytes += filled;
    filled = 0;
  };

  let receivedBytes = 0;
  for await (const chunk of chunks) {
    receivedBytes += chunk.length;
    if (receivedBytes > sizeBytes) throw sizeMismatch(descriptor, receivedBytes);
    for (let taken = 0; taken < chunk.length;) {
      const part = chunk.subarray(taken, taken + BLOCK_BYTES - filled);
      block.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled === BLOCK_BYTES) await flush();
    }
    onProgress?.(receivedBytes);
  }
  if (receivedBytes < sizeBytes) throw sizeMismatch(descriptor, receivedBytes);
  await flush();
  const actual = digestOf(algorithm, hash.digest("hex"));
  if (actual !== digest) {
    throw new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot ingest blob "${digest}": the ${sizeBytes} bytes received hash to "${actual}"`,
      {
        details: { digest, actual },
      },
    );
  }
  await file.truncate(sizeBytes);
}

function sizeMismatch({ digest, sizeBytes }: Descriptor, receivedBytes: number): ShimError {
  const received = receivedBytes > sizeBytes ? `more than ${sizeBytes}` : String(receivedBytes);
  return new ShimError(
    "CONTENT_SIZE_MISMATCH",
    `Cannot ingest blob "${digest}": received ${received} bytes, descriptor says ${sizeBytes} bytes`,
    {
      details: { digest, expectedBytes: sizeBytes, receivedBytes },
    },
  );
}

function throwIfAborted(signal: AbortSignal | undefined): void {
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
