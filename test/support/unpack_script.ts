/**
 * Child of a test: unpacks a gzip layer of the cache, says "reading" when it has begun and, at the end, "made" or
 * "found" and the disk's path. Arguments: ROOT DIGEST SIZE.
 */
import { ContentStore } from "../../src/content/content_store.ts";
import { DerivedDisks } from "../../src/content/derived_disks.ts";
import { parseDigest } from "../../src/image/digest.ts";

const [rootDirectory = "", digest = "", size = ""] = process.argv.slice(2);
const content = await ContentStore.open({ rootDirectory, groupId: null });
const disks = new DerivedDisks({ rootDirectory, groupId: null, content });
let hasBegun = false;
const { path } = await disks.unpackedDisk(
  { mediaType: "application/gzip", digest: parseDigest(digest), sizeBytes: Number(size), annotations: {} },
  { compression: "gzip" },
  {
    onProgress: () => {
      if (!hasBegun) console.log("reading");
      hasBegun = true;
    },
  },
);
console.log(hasBegun ? "made" : "found", path);
