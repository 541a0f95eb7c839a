import { execFileSync } from "node:child_process";
import { readdir, readlink, rename, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { LayoutSource } from "../../../src/content/layout_source.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../../src/image/media_type.ts";
import { blobOf, randomBlob, randomManifest } from "../../support/blobs.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { collect } from "../../support/streams.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { writeForeignLayout } from "../../support/foreign_layout.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const open = () => LayoutSource.open(directory());
const blobPath = (digest: string) => join(directory(), "blobs", ...digest.split(":"));

describe("LayoutSource.open", () => {
  it.each([
    ["IMAGE_NOT_FOUND", "there is no oci-layout", undefined],
    ["MANIFEST_INVALID", "it is of another version", '{"imageLayoutVersion":"2.0.0"}'],
    ["MANIFEST_INVALID", "it is garbage", "root:x:0:0:secret"],
  ])("says %s when %s", async (code, _case, text) => {
    if (text !== undefined) await writeFile(join(directory(), "oci-layout"), text);
    const error = await failureOf(open());
    expect(error.code).toBe(code);
    expect(JSON.stringify([error.message, error.details, String(error.cause)])).not.toContain("secret");
  });

  it("says IMAGE_NOT_FOUND of a directory that is not there", async () => {
    expect(await codeOf(LayoutSource.open(join(directory(), "missing")))).toBe("IMAGE_NOT_FOUND");
  });
});

describe("LayoutSource.resolve", () => {
  it("matches the whole name only, and takes the first of equal ones", async () => {
    const [first, second, other] = [randomManifest(), randomManifest(), randomManifest()];
    const entries = [{ ...other, tag: "1.0.1" }, { ...first, tag: "1.0" }, { ...second, tag: "1.0" }];
    await writeForeignLayout(directory(), { entries, blobs: [] });
    const source = await open();
    expect((await source.resolve("1.0")).bytes).toEqual(first.bytes);
    const error = await failureOf(source.resolve("1"));
    expect([error.code, error.details["offered"]]).toEqual(["IMAGE_NOT_FOUND", ["1.0.1", "1.0", "1.0"]]);
    expect(await codeOf(source.resolve("latest"))).toBe("IMAGE_NOT_FOUND");
  });

  it("takes the only entry for the default tag, and for no other", async () => {
    const only = randomManifest();
    await writeForeignLayout(directory(), { entries: [only], blobs: [] });
    const source = await open();
    expect((await source.resolve("latest")).bytes).toEqual(only.bytes);
    expect(await codeOf(source.resolve("v1"))).toBe("IMAGE_NOT_FOUND");
  });

  it("prefers the entry that is called latest", async () => {
    const [named, other] = [randomManifest(), randomManifest()];
    await writeForeignLayout(directory(), { entries: [other, { ...named, tag: "latest" }], blobs: [] });
    expect((await (await open()).resolve("latest")).bytes).toEqual(named.bytes);
  });

  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  it.each([
    ["an index by its list", json({ schemaVersion: 2, manifests: [] }), OCI_INDEX],
    ["a manifest by default", json({ schemaVersion: 2, layers: [] }), OCI_MANIFEST],
    [
      "what it states",
      json({ mediaType: "application/vnd.docker.distribution.manifest.v2+json" }),
      "application/vnd.docker.distribution.manifest.v2+json",
    ],
  ])("knows an unlisted document's type: %s", async (_case, bytes, mediaType) => {
    const blob = blobOf(bytes, { mediaType });
    await writeForeignLayout(directory(), { entries: [], blobs: [blob] });
    expect(await (await open()).resolve(blob.descriptor.digest)).toEqual(blob);
  });

  it("refuses to take any file for a document", async () => {
    const blobs = [randomBlob(50), blobOf(json({ mediaType: "text/html" })), randomBlob(4 * 1024 * 1024 + 1)];
    await writeForeignLayout(directory(), { entries: [], blobs });
    const source = await open();
    const codes = await Promise.all(blobs.map((blob) => codeOf(source.resolve(blob.descriptor.digest))));
    expect(codes).toEqual(["MANIFEST_INVALID", "MANIFEST_INVALID", "MANIFEST_TOO_LARGE"]);
  });

  it.each(["missing", "garbage", "a link"])("says MANIFEST_INVALID when index.json is %s", async (kind) => {
    await writeForeignLayout(directory(), { entries: [{ ...randomManifest(), tag: "a" }], blobs: [] });
    const path = join(directory(), "index.json");
    if (kind === "a link") {
      await rename(path, `${path}.real`);
      await symlink(`${path}.real`, path);
    } else if (kind === "missing") await unlink(path);
    else await writeFile(path, "{");
    expect(await codeOf((await open()).resolve("a"))).toBe("MANIFEST_INVALID");
  });

  it("HM04 makes no path of a digest that is none", async () => {
    await writeForeignLayout(directory(), { entries: [], blobs: [randomManifest()] });
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const source = await LayoutSource.open(directory(), { fileSystem });
    const hex = "a".repeat(64);
    const hostile = [
      "sha256:../../x",
      "sha256:%2e%2e",
      "sha256:\0",
      `sha256:${hex.toUpperCase()}`,
      `sha256:${hex.slice(1)}`,
      `sha256:${hex}a`,
      ":",
      `..:${hex}`,
      `sha256/..:${hex}`,
      `sha256:${hex}/..`,
      `sha256:${hex}\n`,
    ];
    for (const digest of hostile) {
      const manifests = [{
        mediaType: OCI_MANIFEST,
        digest,
        size: 2,
        annotations: { "org.opencontainers.image.ref.name": "t" },
      }];
      await writeFile(join(directory(), "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
      expect(await codeOf(source.resolve("t"))).toMatch(/^(?:MANIFEST_INVALID|DIGEST_UNSUPPORTED)$/);
      expect(await codeOf(source.resolve(digest))).toMatch(/^(?:MANIFEST_INVALID|DIGEST_UNSUPPORTED)$/);
    }
    const touched = new Set(fileSystem.operations.map((operation) => operation.replace(/^\w+ /, "")));
    expect(touched).toEqual(new Set(["oci-layout", "index.json"].map((name) => join(directory(), name))));
  });
});

describe("LayoutSource blobs", () => {
  it("refuses bytes that are not what the name says", async () => {
    const manifest = randomManifest();
    const { digest } = manifest.descriptor;
    await writeForeignLayout(directory(), { entries: [{ ...manifest, tag: "a" }], blobs: [] });
    await writeFile(blobPath(digest), manifest.bytes.map((byte, i) => i === 5 ? byte ^ 1 : byte));
    const source = await open();
    const codes = await Promise.all(
      [
        source.resolve("a"),
        source.resolve(digest),
        source.fetchDocument(manifest.descriptor),
        source.fetchSmallBlob(manifest.descriptor),
      ].map(codeOf),
    );
    expect(codes).toEqual(Array(4).fill("CONTENT_DIGEST_MISMATCH"));
  });

  it.each(["link", "FIFO", "directory"])("DC08 refuses a %s as a blob", async (kind) => {
    const blob = randomBlob(1000);
    const path = blobPath(blob.descriptor.digest);
    await writeForeignLayout(directory(), { entries: [], blobs: [blob] });
    await rename(path, `${path}.real`);
    if (kind === "link") await symlink(`${path}.real`, path);
    if (kind === "FIFO") execFileSync("mkfifo", [path]);
    if (kind === "directory") execFileSync("mkdir", [path]);
    const source = await open();
    expect(await codeOf(source.openBlob(blob.descriptor))).toBe("CONTENT_CORRUPT");
    expect(await codeOf(source.fetchSmallBlob(blob.descriptor))).toBe("CONTENT_CORRUPT");
  });

  it("gives one byte more than declared of a longer file, and all of a shorter one", async () => {
    const blob = randomBlob(600_000);
    await writeForeignLayout(directory(), { entries: [], blobs: [blob] });
    const source = await open();
    const short = await collect(await source.openBlob({ ...blob.descriptor, sizeBytes: 300_000 }));
    const long = await collect(await source.openBlob({ ...blob.descriptor, sizeBytes: 900_000 }));
    expect([short, long.length]).toEqual([blob.bytes.slice(0, 300_001), 600_000]);
  });

  it("closes its file at the end, on cancel and on failure", async () => {
    const blob = randomBlob(600_000);
    await writeForeignLayout(directory(), { entries: [], blobs: [blob] });
    const path = blobPath(blob.descriptor.digest);
    const source = await open();
    await collect(await source.openBlob(blob.descriptor));
    await (await source.openBlob(blob.descriptor)).cancel();
    const failing = await LayoutSource.open(directory(), {
      fileSystem: new FaultyFileSystem(nodeFileSystem, { at: 3, errno: "EIO" }),
    });
    expect(await codeOf(collect(await failing.openBlob(blob.descriptor)))).toBe("IO_ERROR");
    const links = await Promise.all(
      (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")),
    );
    expect(links.filter((link) => link === path)).toEqual([]);
  });

  it("names the path and errno of a file it may not read", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem, { at: 1, errno: "EACCES" });
    const { descriptor } = randomBlob(10);
    await writeForeignLayout(directory(), { entries: [], blobs: [] });
    const source = await LayoutSource.open(directory(), { fileSystem });
    const error = await failureOf(source.fetchSmallBlob(descriptor));
    expect([error.code, error.details["errno"], error.details["path"]]).toEqual([
      "IO_ERROR",
      "EACCES",
      blobPath(descriptor.digest),
    ]);
  });

  it("reads a layout whose blobs directory is shared by a link", async () => {
    const manifest = randomManifest();
    await writeForeignLayout(directory(), { entries: [{ ...manifest, tag: "a" }], blobs: [] });
    await rename(join(directory(), "blobs"), join(directory(), "shared"));
    await symlink("shared", join(directory(), "blobs"));
    expect((await (await open()).resolve("a")).bytes).toEqual(manifest.bytes);
  });
});
