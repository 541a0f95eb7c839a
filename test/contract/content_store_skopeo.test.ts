import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ContentStore } from "../../src/content/content_store.ts";
import { blobOf, randomManifest } from "../support/blobs.ts";
import { randomWord } from "../support/random_word.ts";
import { contentOf } from "../support/streams.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("skopeo reads the cache by the canonical reference", async () => {
  const rootDirectory = join(temporary(), "root");
  const store = await ContentStore.open({ rootDirectory, groupId: null });
  const config = blobOf(new TextEncoder().encode(JSON.stringify({ random: randomWord() })), {
    mediaType: "application/vnd.oci.image.config.v1+json",
  });
  const manifest = randomManifest({ config: config.descriptor });
  const name = `127.0.0.1:5000/os/demo:${randomWord()}`;
  await store.ingest(config.descriptor, contentOf(config.bytes));
  await store.ingestBytes(manifest);
  await store.setReference(name, manifest.descriptor);
  const raw = execFileSync("skopeo", ["inspect", "--raw", `oci:${store.layoutDirectory}:${name}`]);
  expect(new Uint8Array(raw)).toEqual(manifest.bytes);
  expect(layoutProblems(rootDirectory)).toEqual([]);
});
