/** Child of a test: sets COUNT references at once. Arguments: ROOT PREFIX COUNT DIGEST SIZE. */
import { ContentStore } from "../../src/content/content_store.ts";
import { parseDigest } from "../../src/image/digest.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";

const [rootDirectory = "", prefix = "", count = "", digest = "", size = ""] = process.argv.slice(2);
const store = await ContentStore.open({ rootDirectory, groupId: null });
const descriptor = {
  mediaType: OCI_MANIFEST,
  digest: parseDigest(digest),
  sizeBytes: Number(size),
  annotations: {},
};
await Promise.all(
  Array.from(
    { length: Number(count) },
    (_, i) => store.setReference(`127.0.0.1:5000/${prefix}:${i}`, descriptor),
  ),
);
