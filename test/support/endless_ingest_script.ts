/** Child of a test: begins to ingest a blob that never comes to its end, and says so. Arguments: ROOT DIGEST SIZE. */
import { ContentStore } from "../../src/content/content_store.ts";
import { parseDigest } from "../../src/image/digest.ts";

const [rootDirectory = "", digest = "", size = ""] = process.argv.slice(2);
const store = await ContentStore.open({ rootDirectory, groupId: null });
const stream = new ReadableStream<Uint8Array>({
  start: (controller) => controller.enqueue(new Uint8Array(3 * 1024 * 1024).fill(1)),
  // Keeps the process alive until it is killed.
  pull: () => new Promise((resolve) => setTimeout(resolve, 60_000)),
}, { highWaterMark: 0 });
await store.ingest(
  {
    mediaType: "application/octet-stream",
    digest: parseDigest(digest),
    sizeBytes: Number(size),
    annotations: {},
  },
  stream,
  { onProgress: (doneBytes) => console.log(doneBytes) },
);
