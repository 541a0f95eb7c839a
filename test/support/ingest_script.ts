/**
 * Child of a test: ingests a blob whose bytes lie in a file, and tells on stdout, one line each: `at N` for progress,
 * `done N` with the bytes that came from the file, or `failed CODE`. Argument: {@link IngestTask} as JSON.
 */
import { readFile } from "node:fs/promises";
import { ContentStore } from "../../src/content/content_store.ts";
import { toShimError } from "../../src/errors.ts";
import { parseDigest } from "../../src/image/digest.ts";

export type IngestTask = {
  readonly rootDirectory: string;
  readonly digest: string;
  readonly file: string;
  /** After so many bytes it gives no more, and hangs; default: all. */
  readonly giveBytes?: number;
};

const task: IngestTask = JSON.parse(process.argv[2] ?? "");
const bytes = new Uint8Array(await readFile(task.file));
const { rootDirectory, giveBytes = bytes.length } = task;
const store = await ContentStore.open({ rootDirectory, groupId: null });
const descriptor = {
  mediaType: "application/octet-stream",
  digest: parseDigest(task.digest),
  sizeBytes: bytes.length,
  annotations: {},
};

function open(startByte: number): ReadableStream<Uint8Array> {
  let offset = startByte;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      // Keeps the process alive until it is killed.
      if (offset >= giveBytes && giveBytes < bytes.length) {
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      }
      const chunk = bytes.subarray(offset, Math.min(offset + 256 * 1024, giveBytes));
      offset += chunk.length;
      if (chunk.length > 0) controller.enqueue(chunk);
      else controller.close();
    },
  }, { highWaterMark: 0 });
}

try {
  const onProgress = (doneBytes: number) => console.log(`at ${doneBytes}`);
  const { receivedBytes } = await store.ingest(descriptor, open, { onProgress });
  console.log(`done ${receivedBytes}`);
} catch (error) {
  console.log(`failed ${toShimError(error).code}`);
}
