import { readdir, readFile, rm, stat, unlink, utimes, writeFile } from "node:fs/promises";
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
import { readOnlyFileSystem } from "../../support/read_only_file_system.ts";
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
  ])(
    "DC05 an index that is %s and of which there is no record is reported, and left",
    async (_case, text, why) => {
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
      expect(await codeOf(store.setReference(name("a"), document.descriptor))).toBe("CACHE_LAYOUT_INVALID");
      expect(await readFile(indexPath(), "utf8")).toBe(text);
    },
  );

  it.each<[string, string | null]>([
    ["empty", ""],
    ["torn", '{"schemaVersion":2,"manif'],
    ["no JSON", "garbage\0"],
    ["another document", "[]"],
    ["an entry without descriptor", own({})],
    ["a path as digest", own({ mediaType: "a/b", size: 1, digest: "sha256:../../x" })],
    ["missing", null],
  ])("DC05 an index that is %s is set aside and made anew from our records", async (_case, text) => {
    const other = randomManifest();
    await store.ingestBytes(other);
    const tags = [randomWord(), randomWord()] as const;
    await store.setReference(name(tags[0]), document.descriptor, {
      annotations: { "org.example.kept": "yes" },
    });
    await store.setReference(name(tags[1]), other.descriptor);
    const before = await store.references();
    if (text === null) await unlink(indexPath());
    else await writeFile(indexPath(), text);

    const notes: string[] = [];
    const onWarning = (note: string) => notes.push(note);
    const opened = await ContentStore.open({ rootDirectory: temporary(), groupId: null, onWarning });
    const byName = (one: { name: string }, two: { name: string }) => one.name < two.name ? -1 : 1;
    expect((await opened.references()).toSorted(byName)).toEqual(before.toSorted(byName));
    const aside = join(temporary(), "images", "index.json.damaged-1");
    if (text !== null) expect(await readFile(aside, "utf8")).toBe(text);
    expect(notes).toEqual([expect.stringContaining("made anew from 2 records")]);
    if (text !== null) expect(notes[0]).toContain(aside);
    // And writing goes on as if nothing had been.
    await store.setReference(name("next"), document.descriptor);
    expect(await store.references()).toHaveLength(3);
  });

  it("DC05 damaged twice: both files are kept; an update finds the damage, too", async () => {
    await store.setReference(name("a"), document.descriptor);
    for (const [number, text] of [[1, "one"], [2, "two"]] as const) {
      await writeFile(indexPath(), text);
      await store.setReference(name(`b${number}`), document.descriptor);
      expect(await readFile(`${indexPath()}.damaged-${number}`, "utf8")).toBe(text);
    }
    expect((await store.references()).map((each) => each.name).sort()).toEqual([
      name("a"),
      name("b1"),
      name("b2"),
    ]);
  });

  it("DC05 two entries of one name: ours are made anew, what others wrote stays", async () => {
    await store.setReference(name("a"), document.descriptor);
    const before = await store.references();
    const index = await readIndex();
    const foreign = { mediaType: "x/y", digest: `sha256:${"0".repeat(64)}`, size: 7 };
    await writeFile(
      indexPath(),
      JSON.stringify({ ...index, manifests: [...index.manifests, foreign, ...index.manifests] }),
    );
    expect(await store.references()).toEqual(before);
    expect((await readIndex()).manifests[0]).toEqual(foreign);
  });

  it("DC05 a record whose blob is gone is not offered, one that is broken does not stop the others", async () => {
    const lost = randomManifest();
    await store.ingestBytes(lost);
    await store.setReference(name("a"), document.descriptor);
    await store.setReference(name("lost"), lost.descriptor);
    await writeFile(join(temporary(), "references", `${"0".repeat(64)}.json`), "{");
    await unlink(store.blobPath(lost.descriptor.digest));
    await writeFile(indexPath(), "garbage");
    expect((await store.references()).map((each) => each.name)).toEqual([name("a")]);
    isDamaged = true; // the broken record is for the collector to refuse
  });

  it("DC29 an index of a newer version is refused and left, records or not", async () => {
    isDamaged = true;
    await store.setReference(name("a"), document.descriptor);
    const text = '{"schemaVersion":3,"manifests":{}}';
    await writeFile(indexPath(), text);
    expect(await codeOf(store.references())).toBe("CACHE_LAYOUT_INVALID");
    expect(await codeOf(store.setReference(name("b"), document.descriptor))).toBe("CACHE_LAYOUT_INVALID");
    expect(await readFile(indexPath(), "utf8")).toBe(text);
  });

  it("DC29 a root of a newer version is refused, and nothing in it is written", async () => {
    isDamaged = true;
    await store.setReference(name("a"), document.descriptor);
    await writeFile(join(temporary(), "version.json"), '{"schemaVersion":2}');
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const error = await failureOf(
      ContentStore.open({ rootDirectory: temporary(), groupId: null, fileSystem }),
    );
    expect(error.message).toContain("its version is 2, this bootshim knows version 1");
    expect(fileSystem.operations.filter((each) => /^(?:write|rename|unlink|truncate)/.test(each))).toEqual(
      [],
    );
  });

  it("DC29 a cache of before there were records gets them when it is opened", async () => {
    await store.setReference(name("a"), document.descriptor);
    await rm(join(temporary(), "references"), { recursive: true });
    await unlink(join(temporary(), "version.json"));
    await ContentStore.open({ rootDirectory: temporary(), groupId: null });
    expect(layoutProblems(temporary())).toEqual([]);
    await writeFile(indexPath(), "garbage");
    expect((await store.references()).map((each) => each.name)).toEqual([name("a")]);
  });

  it.each(["", "garbage", null])(
    "DC04 oci-layout %j beside records of ours is written anew, and no blob is touched",
    async (text) => {
      await store.setReference(name("a"), document.descriptor);
      const path = join(temporary(), "images", "oci-layout");
      if (text === null) await unlink(path);
      else await writeFile(path, text);
      const opened = await ContentStore.open({ rootDirectory: temporary(), groupId: null });
      expect((await opened.references()).map((each) => each.name)).toEqual([name("a")]);
      expect((await opened.readDocument(document.descriptor)).bytes).toEqual(document.bytes);
    },
  );

  it("DC04 oci-layout of another version is refused, records or not", async () => {
    isDamaged = true;
    await store.setReference(name("a"), document.descriptor);
    const path = join(temporary(), "images", "oci-layout");
    await writeFile(path, '{"imageLayoutVersion":"2.0.0"}');
    expect(await codeOf(ContentStore.open({ rootDirectory: temporary(), groupId: null }))).toBe(
      "CACHE_LAYOUT_INVALID",
    );
    expect(await readFile(path, "utf8")).toBe('{"imageLayoutVersion":"2.0.0"}');
  });

  it("sets an image's last use each time its name is set", async () => {
    await store.setReference(name("a"), document.descriptor);
    const [file = ""] = await readdir(join(temporary(), "references"));
    const path = join(temporary(), "references", file);
    await utimes(path, 1000, 1000);
    await store.setReference(name("a"), document.descriptor);
    expect((await stat(path)).mtimeMs).toBeGreaterThan(1_000_000);
  });

  it("DC15 names an image again on a read-only file system, where it is named so already", async () => {
    await store.setReference(name("a"), document.descriptor);
    const readOnly = await ContentStore.open({
      rootDirectory: temporary(),
      groupId: null,
      fileSystem: readOnlyFileSystem(nodeFileSystem),
    });
    await readOnly.setReference(name("a"), document.descriptor);
    expect((await readOnly.findReference(name("a")))?.descriptor.digest).toBe(document.descriptor.digest);
    const error = await failureOf(readOnly.setReference(name("b"), document.descriptor));
    expect([error.code, error.details["errno"]]).toEqual(["IO_ERROR", "EROFS"]);
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
