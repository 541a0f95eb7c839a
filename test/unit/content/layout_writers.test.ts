import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openArchiveSource } from "../../../src/content/archive_source.ts";
import { writeArchive } from "../../../src/content/archive_writer.ts";
import { LayoutSource } from "../../../src/content/layout_source.ts";
import { type LayoutContent, writeLayout } from "../../../src/content/layout_writer.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "../../support/blobs.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { writeForeignLayout } from "../../support/foreign_layout.ts";
import { randomWord } from "../../support/random_word.ts";
import { chunksOf, collect, streamOf } from "../../support/streams.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

type Image = { readonly content: LayoutContent; readonly blobs: readonly Blob[]; readonly name: string };

/** An image that no other test has; `give` may spoil the bytes of its blobs. */
function randomImage(
  { name = `127.0.0.1:5000/os/${randomWord()}:1`, give = (blob: Blob) => blob.bytes }: {
    name?: string;
    give?: (blob: Blob) => Uint8Array;
  } = {},
): Image {
  const layers = [
    randomBlob(300_001),
    blobOf(new Uint8Array(), {}),
    blobOf(new Uint8Array(70_000).fill(3), { algorithm: "sha512" }),
  ];
  const manifest = randomManifest({ layers: layers.map((layer) => layer.descriptor) });
  const blobs = [...layers, manifest];
  const entry = { ...manifest.descriptor, annotations: { "org.opencontainers.image.ref.name": name } };
  return {
    name,
    blobs,
    content: {
      entries: [entry],
      blobs: blobs.map((blob) => blob.descriptor),
      open: ({ digest }) => {
        const blob = blobs.find((each) => each.descriptor.digest === digest);
        if (!blob) throw new Error(`no blob ${digest}`);
        return Promise.resolve(streamOf(...chunksOf(give(blob), 65_537)));
      },
    },
  };
}

const WRITERS = [
  { name: "writeArchive", write: writeArchive, open: openArchiveSource },
  {
    name: "writeLayout",
    write: writeLayout,
    open: (path: string) => LayoutSource.open(path),
  },
] as const;

describe.each(WRITERS)("$name", ({ write, open }) => {
  const target = () => join(temporary(), "target");
  const beside = () => readdir(temporary());

  it("writes what a source reads, byte for byte", async () => {
    const image = randomImage();
    await write(target(), image.content);
    const source = await open(target());
    try {
      expect((await source.resolve(image.name)).bytes).toEqual(image.blobs.at(-1)?.bytes);
      for (const { descriptor, bytes } of image.blobs) {
        expect(await collect(source.openBlob(descriptor))).toEqual(bytes);
      }
    } finally {
      await source.close();
    }
    expect(await beside()).toEqual(["target"]);
  });

  it("tells how much of each blob was written", async () => {
    const { content, blobs } = randomImage();
    const done = new Map<string, number>();
    await write(target(), content, { onProgress: (digest, doneBytes) => done.set(digest, doneBytes) });
    const sizes = blobs.filter(({ bytes }) => bytes.length > 0).map(({ descriptor, bytes }) =>
      [descriptor.digest, bytes.length] as const
    );
    expect(new Map([...done].sort())).toEqual(new Map([...sizes].sort()));
  });

  it.each([
    ["is shorter", (bytes: Uint8Array) => bytes.subarray(1), "CONTENT_SIZE_MISMATCH"],
    ["is longer", (bytes: Uint8Array) => new Uint8Array([...bytes, 0]), "CONTENT_SIZE_MISMATCH"],
    [
      "differs",
      (bytes: Uint8Array) => bytes.map((byte, i) => i === 200_000 ? byte ^ 1 : byte),
      "CONTENT_DIGEST_MISMATCH",
    ],
  ])("leaves nothing when a blob %s", async (_case, spoil, code) => {
    const { content } = randomImage({
      give: ({ bytes }) => bytes.length === 300_001 ? spoil(bytes) : bytes,
    });
    expect(await codeOf(write(target(), content))).toBe(code);
    expect(await beside()).toEqual([]);
  });

  it("leaves nothing when it is cancelled", async () => {
    const stop = new AbortController();
    const { content } = randomImage();
    const onProgress = () => stop.abort("enough");
    expect(await codeOf(write(target(), content, { signal: stop.signal, onProgress }))).toBe("CANCELLED");
    expect(await beside()).toEqual([]);
  });

  it("leaves nothing whichever file operation fails, and what was there as it was", async () => {
    const { content } = randomImage();
    const counting = new FaultyFileSystem(nodeFileSystem);
    await write(join(temporary(), "counted"), content, { fileSystem: counting });
    const operations = counting.operations.length;
    expect(operations).toBeGreaterThan(8);
    for (let at = 0; at < operations; at++) {
      const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "EIO" });
      const path = join(temporary(), `failed-${at}`);
      const result = await write(path, content, { fileSystem }).then(() => "written", (error) => error.code);
      const names = (await beside()).filter((name) =>
        name.startsWith(`failed-${at}`) || name.startsWith(".")
      );
      // A failure of the last sync comes when everything is there already; one of removing what is left is not told.
      expect([at, result, names.filter((name) => name !== `failed-${at}`)]).toEqual([at, result, []]);
      if (names.length === 0) expect(result).toBe("IO_ERROR");
      else await (await open(path)).close();
    }
  });

  it("names the folder that is not there", async () => {
    const failure = await failureOf(write(join(temporary(), "no", "target"), randomImage().content));
    expect([failure.code, failure.details["errno"]]).toEqual(["IO_ERROR", "ENOENT"]);
  });
});

describe("writeArchive", () => {
  const path = () => join(temporary(), "image.tar");

  it("gives the same bytes for the same content, in any order, at any time", async () => {
    const { content } = randomImage();
    await writeArchive(path(), content);
    const other = join(temporary(), "other.tar");
    await writeArchive(other, { ...content, blobs: content.blobs.toReversed() });
    expect(await readFile(other)).toEqual(await readFile(path()));
    const listing = execFileSync("tar", ["--list", "--verbose", "--numeric-owner", "--utc", "--file", path()])
      .toString().trimEnd().split("\n");
    const names = listing.map((line) => line.split(" ").at(-1));
    expect(names).toEqual([...names].sort());
    for (const line of listing) expect(line).toMatch(/^-rw-r--r-- 0\/0 +\d+ 1970-01-01 00:00 /);
  });

  it("replaces a file, and nothing else", async () => {
    const { content, name } = randomImage();
    await writeFile(path(), "old");
    await writeArchive(path(), content);
    const source = await openArchiveSource(path());
    expect((await source.entries()).map((entry) => entry.name)).toEqual([name]);
    await source.close();

    await mkdir(join(temporary(), "folder"));
    await symlink("image.tar", join(temporary(), "link"));
    for (const other of ["folder", "link"]) {
      expect(await codeOf(writeArchive(join(temporary(), other), content))).toBe("REQUEST_INVALID");
    }
    expect((await readdir(temporary())).sort()).toEqual(["folder", "image.tar", "link"]);
  });
});

describe("writeLayout", () => {
  const directory = () => join(temporary(), "layout");
  const namesIn = async () =>
    (await (await LayoutSource.open(directory())).entries()).map(({ name }) => name);

  it("fills an empty folder", async () => {
    await mkdir(directory());
    await writeLayout(directory(), randomImage().content);
    expect((await readdir(directory())).sort()).toEqual(["blobs", "index.json", "oci-layout"]);
  });

  it("adds to a layout that is there, and keeps what it lists and holds, word for word", async () => {
    const foreign = { ...randomManifest(), tag: "theirs" };
    await writeForeignLayout(directory(), { entries: [foreign], blobs: [randomBlob(10)] });
    const index = JSON.parse(await readFile(join(directory(), "index.json"), "utf8"));
    index.annotations = { kept: "yes" };
    await writeFile(join(directory(), "index.json"), JSON.stringify(index));
    const image = randomImage();
    await writeLayout(directory(), image.content);
    expect(await namesIn()).toEqual(["theirs", image.name]);
    const { manifests: [first], ...rest } = JSON.parse(
      await readFile(join(directory(), "index.json"), "utf8"),
    );
    expect([first, rest]).toEqual([index.manifests[0], { schemaVersion: 2, annotations: { kept: "yes" } }]);
    expect((await readdir(directory())).sort()).toEqual(["blobs", "index.json", "oci-layout"]);
  });

  it("replaces the entry of the same name only, and writes no blob twice", async () => {
    const [old, other] = [randomImage({ name: "a" }), randomImage({ name: "b" })];
    await writeLayout(directory(), old.content);
    await writeLayout(directory(), other.content);
    const next = randomImage({ name: "a" });
    const blobs = join(directory(), "blobs", "sha256");
    const kept = join(blobs, old.blobs[0]?.descriptor.digest.slice(7) ?? "");
    await utimes(kept, 1, 1);
    await writeLayout(directory(), {
      ...next.content,
      blobs: [...next.content.blobs, ...old.content.blobs],
      open: (blob) => (next.content.blobs.includes(blob) ? next : old).content.open(blob),
    });
    const entries = await (await LayoutSource.open(directory())).entries();
    expect(entries.map(({ name, descriptor }) => [name, descriptor.digest])).toEqual([
      ["b", other.blobs.at(-1)?.descriptor.digest],
      ["a", next.blobs.at(-1)?.descriptor.digest],
    ]);
    expect((await stat(kept)).mtimeMs).toBe(1000);
  });

  it("replaces a damaged blob", async () => {
    const image = randomImage();
    await writeLayout(directory(), image.content);
    const [blob] = image.blobs;
    const path = join(directory(), "blobs", ...(blob?.descriptor.digest ?? "").split(":"));
    await writeFile(path, new Uint8Array(300_001));
    await writeLayout(directory(), image.content);
    expect(new Uint8Array(await readFile(path))).toEqual(blob?.bytes);
  });

  it("takes no folder that is in other use, and no broken layout", async () => {
    const { content } = randomImage();
    await mkdir(directory());
    await writeFile(join(directory(), "precious"), "");
    expect(await codeOf(writeLayout(directory(), content))).toBe("CONFLICT");
    await writeFile(join(directory(), "oci-layout"), '{"imageLayoutVersion":"2.0.0"}');
    expect(await codeOf(writeLayout(directory(), content))).toBe("MANIFEST_INVALID");
    await writeFile(join(directory(), "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    expect(await codeOf(writeLayout(directory(), content))).toBe("MANIFEST_INVALID");
    expect((await readdir(directory())).sort()).toEqual(["oci-layout", "precious"]);
  });
});
