import { chmod, mkdir, rename, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content_store.ts";
import { randomManifest } from "../../support/blobs.ts";
import { randomWord } from "../../support/random_word.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const at = (...names: string[]) => join(temporary(), ...names);
let blobPath = "";

beforeEach(async () => {
  const store = await ContentStore.open({ rootDirectory: temporary(), groupId: null });
  const document = randomManifest();
  await store.ingestBytes(document);
  await store.setReference(`localhost/${randomWord()}:1`, document.descriptor);
  blobPath = await store.locateBlob(document.descriptor);
  expect(layoutProblems(temporary())).toEqual([]);
});

it.each<[string, () => Promise<unknown>]>([
  ["a changed blob", async () => {
    await chmod(blobPath, 0o600);
    await writeFile(blobPath, "other");
    await chmod(blobPath, 0o400);
  }],
  ["a missing blob", () => unlink(blobPath)],
  ["a blob under another name", () => rename(blobPath, `${blobPath.slice(0, -1)}x`)],
  ["a temporary file among the blobs", () => writeFile(at("images/blobs/sha256/.tmp"), "", { mode: 0o400 })],
  ["a directory among the blobs", () => mkdir(at("images/blobs/sha256/d"))],
  ["a blob that others can read", () => chmod(blobPath, 0o444)],
  ["an open directory", () => chmod(at("images"), 0o755)],
  ["an open lock directory", () => chmod(at("locks"), 0o755)],
  ["a partial file", () => writeFile(at("ingest/x"), "")],
  ["a stray file", () => writeFile(at("images/.index.json.new"), "")],
  ["an index that others can read", () => chmod(at("images/index.json"), 0o644)],
  ["another layout version", () => writeFile(at("images/oci-layout"), "{}")],
])("layoutProblems sees %s", async (_case, damage) => {
  await damage();
  expect(layoutProblems(temporary())).not.toEqual([]);
});
