import type { OpenFile } from "./file_system.ts";
import { HOLE_BYTES, writeSparsely } from "./sparse_writer.ts";

/** Large enough that calls cost nothing, small enough that several copies at once fit into little memory. */
const BUFFER_BYTES = 1024 * 1024;

/**
 * Copies `sizeBytes` bytes of one file into another, fresh one. Holes stay holes, zeros become some; the next part is
 * read while the last is written. Nothing is synced. Rejects with an errno error, or with the signal's reason.
 */
export async function copySparsely(
  source: OpenFile,
  target: OpenFile,
  { sizeBytes, signal }: { readonly sizeBytes: number; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  let [front, back] = [new Uint8Array(BUFFER_BYTES), new Uint8Array(BUFFER_BYTES)];
  let writing: Promise<unknown> = Promise.resolve();
  try {
    for (let at = 0; at < sizeBytes;) {
      const extent = await findData(source, at);
      if (!extent || extent.startByte >= sizeBytes) break;
      // A file system may tell extents that begin within a block.
      const startByte = Math.max(at, extent.startByte - extent.startByte % HOLE_BYTES);
      const endByte = Math.min(extent.endByte, sizeBytes);
      for (at = startByte; at < endByte;) {
        signal?.throwIfAborted();
        const length = await source.read(front.subarray(0, Math.min(BUFFER_BYTES, endByte - at)), at);
        if (length === 0) throw shrunk();
        await writing;
        writing = writeSparsely(target, front.subarray(0, length), at);
        // Told where it is awaited; it may fail before.
        writing.catch(() => {});
        at += length;
        [front, back] = [back, front];
      }
      at = endByte;
    }
  } finally {
    await writing;
  }
  await target.truncate(sizeBytes);
}

/** All of the rest where the file system cannot tell: content is found by looking. */
async function findData(source: OpenFile, at: number) {
  try {
    return await source.findData(at);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EINVAL") {
      return { startByte: at, endByte: Infinity };
    }
    throw error;
  }
}

/** EIO, because nothing else fits a file that lost bytes under our eyes. */
function shrunk(): Error {
  return Object.assign(new Error("the file ends before its size"), { code: "EIO" });
}
