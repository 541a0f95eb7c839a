import { readFile, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content_store.ts";
import { toRefName } from "../../../src/content/reference_name.ts";
import type { VerifiedDocument } from "../../../src/image/image_source.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { randomManifest } from "../../support/blobs.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const indexPath = () => join(temporary(), "images", "index.json");
const readIndex = async () => JSON.parse(await readFile(indexPath(), "utf8"));
const name = (tag: string) => `127.0.0.1:5000/os/demo:${tag}`;

let store: ContentStore;
let document: VerifiedDocument;
let isDamaged = false;
beforeEach(async () => {
  store = await ContentStore.open({ rootDirectory: temporary(), groupId: null });
  document = randomManifest();
  await store.ingestBytes(document);
});
afterEach(() => {
  if (!isDamaged) expect(layoutProblems(temporary())).toEqual([]);
  isDamaged = false;
});

describe("ContentStore references", () => {
  it("writes the entry that other tools read, and reads it back", async () => {
    const { mediaType, digest, sizeBytes } = document.descriptor;
    const tag = randomWord();
    await store.setReference(name(tag), document.descriptor, {
      annotations: { "io.bootshim.pinned": "true" },
    });
    const annotations = {
      "io.bootshim.pinned": "true",
      "org.opencontainers.image.ref.name": name(tag),
      "io.bootshim.reference": name(tag),
    };
    expect(await readIndex()).toEqual({
      schemaVersion: 2,
      manifests: [{ mediaType, digest, size: sizeBytes, annotations }],
    });
    const reference = { name: name(tag), descriptor: { mediaType, digest, sizeBytes, annotations } };
    expect(await store.references()).toEqual([reference]);
    expect(await store.findReference(name(tag))).toEqual(reference);
    expect(await store.findReference(name("other"))).toBeUndefined();
  });

  it("moves a name to another document and leaves the other names", async () => {
    const other = randomManifest();
    await store.ingestBytes(other);
    await store.setReference(name("a"), document.descriptor);
    await store.setReference(name("b"), document.descriptor);
    await store.setReference(name("a"), other.descriptor);
    expect((await store.references()).map((reference) => [reference.name, reference.descriptor.digest]))
      .toEqual([
        [name("b"), document.descriptor.digest],
        [name("a"), other.descriptor.digest],
      ]);
  });

  it("does not write when nothing changes", async () => {
    await store.setReference(name("a"), document.descriptor);
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const watched = await ContentStore.open({ rootDirectory: temporary(), groupId: null, fileSystem });
    await watched.setReference(name("a"), document.descriptor);
    await watched.removeReference(name("unknown"));
    expect(fileSystem.operations.filter((operation) => /^(?:write|rename)/.test(operation))).toEqual([]);
  });

  it("forgets a name and keeps its blob", async () => {
    await store.setReference(name("a"), document.descriptor);
    await store.removeReference(name("a"));
    expect(await store.references()).toEqual([]);
    expect(await store.hasBlob(document.descriptor)).toBe(true);
  });

  it("refuses to name a blob that is not there", async () => {
    expect(await codeOf(store.setReference(name("a"), randomManifest().descriptor))).toBe("IMAGE_NOT_FOUND");
  });

  it("HM23 drops what an image says in our own annotations", async () => {
    const annotations = {
      "io.bootshim.pinned": "true",
      "io.bootshim.reference": name("victim"),
      "org.example.kept": "yes",
    };
    await store.setReference(name("a"), { ...document.descriptor, annotations });
    const [reference] = await store.references();
    expect([reference?.name, reference?.descriptor.annotations]).toEqual([name("a"), {
      "org.example.kept": "yes",
      "org.opencontainers.image.ref.name": name("a"),
      "io.bootshim.reference": name("a"),
    }]);
  });

  it("HM23 keeps foreign entries and fields word for word, and does not offer them", async () => {
    const foreign = [
      {
        mediaType: "x/y",
        digest: "md5:1",
        size: -1,
        annotations: { "org.opencontainers.image.ref.name": name("a") },
        platform: { os: 7 },
      },
      { nothing: "at all", annotations: null },
      { annotations: { "io.bootshim.reference": 5 } },
    ];
    await writeFile(
      indexPath(),
      JSON.stringify({ schemaVersion: 2, manifests: foreign, "org.example": [1] }),
      { mode: 0o600 },
    );
    await store.setReference(name("a"), document.descriptor);
    expect((await store.references()).map((reference) => reference.name)).toEqual([name("a")]);
    await store.removeReference(name("a"));
    expect(await readIndex()).toEqual({ schemaVersion: 2, manifests: foreign, "org.example": [1] });
    isDamaged = true; // such entries have no sound descriptor
  });

  const own = (entry: object) =>
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ annotations: { "io.bootshim.reference": "n" }, ...entry }],
    });
  it.each([
    ["an empty file", "", "it is not a UTF-8 JSON document"],
    ["a torn document", '{"schemaVersion":2,"manif', "it is not a UTF-8 JSON document"],
    ["another document", "[]", "document: Invalid input: expected object, received array"],
    ["another schema", '{"schemaVersion":1,"manifests":[]}', "schemaVersion: Invalid input: expected 2"],
    [
      "no descriptor",
      own({}),
      'the entry of "n" is no descriptor, mediaType: Invalid input: expected string, received undefined; digest: Invalid input: expected string, received undefined; size: Invalid input: expected number, received undefined',
    ],
    [
      "HM04 a path as digest",
      own({ mediaType: "a/b", size: 1, digest: "sha256:../../x" }),
      'the entry of "n" has no usable digest',
    ],
  ])("DC05 reports an index that is %s, and leaves it", async (_case, text, why) => {
    isDamaged = true;
    await writeFile(indexPath(), text);
    const error = await failureOf(store.references());
    expect([error.code, error.message]).toEqual([
      "CACHE_LAYOUT_INVALID",
      `Cannot use cache "${indexPath()}": ${why}`,
    ]);
    expect(error.details.remedy).toBe(
      "put the file back from a backup, or move the directory away and pull again",
    );
    expect(await readFile(indexPath(), "utf8")).toBe(text);
  });

  it("DC05 does not write over an index it cannot read", async () => {
    isDamaged = true;
    await writeFile(indexPath(), "garbage");
    expect(await codeOf(store.setReference(name("a"), document.descriptor))).toBe("CACHE_LAYOUT_INVALID");
    expect(await readFile(indexPath(), "utf8")).toBe("garbage");
    await unlink(indexPath());
    expect(await codeOf(store.references())).toBe("CACHE_LAYOUT_INVALID");
  });

  it("DC05 reports two entries of one name", async () => {
    isDamaged = true;
    await store.setReference(name("a"), document.descriptor);
    const index = await readIndex();
    await writeFile(
      indexPath(),
      JSON.stringify({ ...index, manifests: [...index.manifests, ...index.manifests] }),
    );
    expect(await codeOf(store.references())).toBe("CACHE_LAYOUT_INVALID");
    expect(await codeOf(store.findReference(name("a")))).toBe("CACHE_LAYOUT_INVALID");
  });

  it("keeps all of many updates made at the same time", async () => {
    const tags = Array.from({ length: 20 }, randomWord);
    await Promise.all(tags.map((tag) => store.setReference(name(tag), document.descriptor)));
    expect((await store.references()).map((reference) => reference.name).sort()).toEqual(
      tags.map(name).sort(),
    );
  });
});

describe("toRefName", () => {
  it.each([
    ["127.0.0.1:5000/os/demo:1", "127.0.0.1:5000/os/demo:1"],
    ["registry.example.org/os/demo@sha256:ab12", "registry.example.org/os/demo@sha256:ab12"],
    ["[::1]:5000/os/demo:1", "1-5000/os/demo:1"],
    ["localhost/a__b/c---d:v1_2", "localhost/a-b/c-d:v1_2"],
    ["localhost/a--b:_x_", "localhost/a--b-x"],
    ["oci:/srv/my images/x:latest", "oci/srv/my-images/x:latest"],
    ["///", "image"],
    ["ä", "image"],
  ])("makes of %s the name %s", (reference, refName) => {
    expect(toRefName(reference)).toBe(refName);
  });
});
