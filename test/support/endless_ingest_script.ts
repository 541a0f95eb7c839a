/**
 * Child of a test: begins to ingest the blob in FILE, never comes to its end, and says on stdout how far it is; a blob
 * that is there or comes from elsewhere it takes, and says `done`. Arguments: ROOT DIGEST FILE BYTES, the last the number
 * of bytes that it gives.
 */
import { readFile } from "node:fs/promises";
import { ContentStore } from "../../src/content/content_store.ts";
import { parseDigest } from "../../src/image/digest.ts";

const [rootDirectory = "", digest = "", file = "", count = ""] = process.argv.slice(2);
const store = await ContentStore.open({ rootDirectory, groupId: null });
const bytes = new Uint8Array(await readFile(file));
const descriptor = {
  mediaType: "application/octet-stream",
  digest: parseDigest(digest),
  sizeBytes: bytes.length,
  annotations: {},
};
const open = (startByte: number) =>
  new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(bytes.subarray(startByte, Number(count))),
    // Keeps the process alive until it is killed.
    pull: () => new Promise((resolve) => setTimeout(resolve, 60_000)),
  }, { highWaterMark: 0 });
await store.ingest(descriptor, open, { onProgress: (doneBytes) => console.log(doneBytes) });
console.log("done");
