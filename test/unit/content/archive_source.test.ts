import { execFileSync } from "node:child_process";
import { readdir, readlink, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { openArchiveSource } from "../../../src/content/archive_source.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "../../support/blobs.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { collect } from "../../support/streams.ts";
import { concat, paxRecords, TAR_END, type TarEntry, tarEntry, tarOf } from "../../support/tar_bytes.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const archivePath = () => join(temporary(), "image.tar");
const text = (json: unknown) => new TextEncoder().encode(JSON.stringify(json));

const manifest = randomManifest();
const layer = randomBlob(700_001);

function blobEntry({ descriptor: { digest }, bytes }: Blob): TarEntry {
  return { name: `blobs/${digest.replace(":", "/")}`, bytes };
}

/** The members of a layout that offers {@link manifest} as "1". */
const MEMBERS: readonly TarEntry[] = [
  blobEntry(manifest),
  blobEntry(layer),
  {
    name: "index.json",
    bytes: text({
      schemaVersion: 2,
      manifests: [{
        mediaType: manifest.descriptor.mediaType,
        digest: manifest.descriptor.digest,
        size: manifest.bytes.length,
        annotations: { "org.opencontainers.image.ref.name": "1" },
      }],
    }),
  },
  { name: "oci-layout", bytes: text({ imageLayoutVersion: "1.0.0" }) },
];

async function openBytes(bytes: Uint8Array) {
  await writeFile(archivePath(), bytes);
  return await openArchiveSource(archivePath());
}

/** What opening an archive with one more member ends with. */
async function failureWith(...entries: readonly TarEntry[]) {
  return await failureOf(openBytes(tarOf(...MEMBERS, ...entries)));
}

describe("openArchiveSource", () => {
  it("reads documents and layers where they lie in the archive", async () => {
    const source = await openBytes(tarOf(...MEMBERS));
    try {
      expect((await source.resolve("1")).bytes).toEqual(manifest.bytes);
      expect(await source.entries()).toMatchObject([{
        name: "1",
        descriptor: { sizeBytes: manifest.bytes.length },
      }]);
      expect(await collect(source.openBlob(layer.descriptor))).toEqual(layer.bytes);
      expect(await source.readHead(layer.descriptor, 10)).toEqual(layer.bytes.slice(0, 10));
      // No byte of the member behind, whatever the descriptor says.
      const longer = { ...layer.descriptor, sizeBytes: layer.bytes.length + 100_000 };
      expect(await collect(source.openBlob(longer))).toEqual(layer.bytes);
    } finally {
      await source.close();
    }
  });

  it("reads folders, a leading ./, long names of both kinds, and sizes in pax headers", async () => {
    const long = blobOf(new TextEncoder().encode("of a long name"), { algorithm: "sha512" });
    const [name, other] = [blobEntry(long).name, blobEntry(layer).name];
    const [, , index = { name: "" }, layout = { name: "" }] = MEMBERS;
    const source = await openBytes(tarOf(
      { name: "./", type: "5" },
      { name: "./blobs/", type: "5" },
      { name: "././@LongLink", type: "L", bytes: new TextEncoder().encode(`./${name}\0`) },
      { name: name.slice(0, 99), bytes: long.bytes },
      {
        name: "PaxHeaders/x",
        type: "x",
        bytes: paxRecords({ path: `./${other}`, size: String(layer.bytes.length), comment: "é=\u00fc" }),
      },
      { name: "short", bytes: layer.bytes, sizeField: "00000000000 " },
      { ...index, name: "./index.json" },
      { ...layout, name: ".//oci-layout", type: "\0" },
      { name: "blobs", type: "5" },
    ));
    try {
      expect(await collect(source.openBlob(long.descriptor))).toEqual(long.bytes);
      expect(await collect(source.openBlob(layer.descriptor))).toEqual(layer.bytes);
    } finally {
      await source.close();
    }
  });

  it("needs no bytes after the end mark's first block, and ignores what stands behind it", async () => {
    const whole = concat(...MEMBERS.map(tarEntry));
    for (const end of [TAR_END.subarray(0, 512), TAR_END, concat(TAR_END, new Uint8Array(8192).fill(7))]) {
      await (await openBytes(concat(whole, end))).close();
    }
  });

  it.each([
    ["a symbolic link", { name: "x", type: "2" }, '"x" is a SymbolicLink'],
    ["a hard link", { name: "blobs/x", type: "1" }, '"blobs/x" is a Link'],
    ["a device", { name: "x", type: "3" }, '"x" is a CharacterDevice'],
    ["a FIFO", { name: "x", type: "6" }, '"x" is a FIFO'],
    ["a sparse file", { name: "x", type: "S" }, '"x" is a SparseFile'],
    [
      "headers for all that follows",
      { name: "x", type: "g", bytes: paxRecords({ size: "1" }) },
      "GlobalExtendedHeader",
    ],
    ["a kind nobody knows", { name: "x", type: "?" }, '"x" is a Unsupported'],
    ["an absolute name", { name: "/etc/x" }, '"/etc/x" leads out of it'],
    ["a name with ..", { name: "blobs/../../x" }, '"blobs/../../x" leads out of it'],
    ["a folder ..", { name: "..", type: "5" }, '".." leads out of it'],
    ["a name twice", { name: "index.json" }, '"index.json" stands in it twice'],
    [
      "a name twice in other spelling",
      { name: ".//blobs/./../index.json".replace("/./..", "/..") },
      "leads out",
    ],
    ["a name twice with ./", { name: "./index.json" }, '"./index.json" stands in it twice'],
    ["a folder of a file's name", { name: "oci-layout/", type: "5" }, "stands in it twice"],
  ])("refuses an archive with %s", async (_case, entry, why) => {
    const { code, message } = await failureWith(entry);
    expect(code).toBe("FORMAT_UNSAFE");
    expect(message).toContain(why);
  });

  it("refuses a name that no file system takes", async () => {
    const path = new TextEncoder().encode("x".repeat(4097));
    const { code } = await failureWith({ name: "@LongLink", type: "L", bytes: path }, { name: "x" });
    expect(code).toBe("LIMIT_EXCEEDED");
  });

  it("refuses a pax header that renames a member to lead out", async () => {
    const { code, message } = await failureWith(
      { name: "x", type: "x", bytes: paxRecords({ path: "../x" }) },
      { name: "harmless" },
    );
    expect([code, message.includes('"../x" leads out')]).toEqual(["FORMAT_UNSAFE", true]);
  });

  it.each([
    ["a size beyond the end", { name: "x", sizeField: "77777777777 " }, "CONTENT_SIZE_MISMATCH"],
    ["no size", { name: "x", sizeField: "            " }, "MANIFEST_INVALID"],
    ["words for a size", { name: "x", sizeField: "zzzzzzzzzzz " }, "MANIFEST_INVALID"],
    ["a negative size", { name: "x", sizeField: "\xff" + "\xff".repeat(11) }, "MANIFEST_INVALID"],
    ["a size no number holds", { name: "x", sizeField: "\x80" + "\x7f".repeat(11) }, "MANIFEST_INVALID"],
    ["a long header", { name: "x", type: "x", bytes: new Uint8Array(1024 * 1024 + 1) }, "LIMIT_EXCEEDED"],
  ])("refuses an archive with %s", async (_case, entry, code) => {
    expect((await failureWith(entry)).code).toBe(code);
  });

  it.each(["1.5", "1e400", "9007199254740993"])("refuses size %s in a pax header", async (size) => {
    const { code } = await failureWith({ name: "x", type: "x", bytes: paxRecords({ size }) }, { name: "y" });
    expect(["MANIFEST_INVALID", "CONTENT_SIZE_MISMATCH"]).toContain(code);
  });

  it("refuses an archive that is cut anywhere", async () => {
    const whole = concat(...MEMBERS.map(tarEntry), TAR_END.subarray(0, 512));
    for (const keptBytes of [whole.length - 1, whole.length - 512, whole.length - 900, 600, 512, 511, 1]) {
      const code = await codeOf(openBytes(whole.subarray(0, keptBytes)));
      expect([keptBytes, code]).toEqual([
        keptBytes,
        keptBytes < 512 ? "MANIFEST_INVALID" : "CONTENT_SIZE_MISMATCH",
      ]);
    }
  });

  it("refuses an archive that breaks off into garbage", async () => {
    const bytes = concat(...MEMBERS.map(tarEntry), new Uint8Array(1024).fill(0x41));
    expect((await failureOf(openBytes(bytes))).message).toContain("there is no header of a member at byte");
  });

  it.each([
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ])("says of an archive in %s that it is compressed", async (name, compress) => {
    const { code, message } = await failureOf(openBytes(new Uint8Array(compress(tarOf(...MEMBERS)))));
    expect([code, message.includes(`compressed by ${name}`)]).toEqual(["FORMAT_MISMATCH", true]);
  });

  it.each([
    ["no archive", new Uint8Array(4096).fill(0x42), "MANIFEST_INVALID"],
    ["an empty file", new Uint8Array(), "MANIFEST_INVALID"],
    ["an empty archive", TAR_END, "IMAGE_NOT_FOUND"],
    ["an archive without oci-layout", tarOf(...MEMBERS.slice(0, 3)), "IMAGE_NOT_FOUND"],
    [
      "another layout version",
      tarOf({ name: "oci-layout", bytes: text({ imageLayoutVersion: "2" }) }),
      "MANIFEST_INVALID",
    ],
    [
      "an oci-layout of 5 MiB",
      tarOf({ name: "oci-layout", bytes: new Uint8Array(5 * 1024 * 1024) }),
      "MANIFEST_INVALID",
    ],
  ])("refuses %s, and closes the file", async (_case, bytes, code) => {
    expect(await codeOf(openBytes(bytes))).toBe(code);
    const links = await Promise.all(
      (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")),
    );
    expect(links.filter((link) => link === archivePath())).toEqual([]);
  });

  it("says what is there in place of a regular file", async () => {
    expect(await codeOf(openArchiveSource(join(temporary(), "missing.tar")))).toBe("IMAGE_NOT_FOUND");
    expect(await codeOf(openArchiveSource(temporary()))).toBe("REQUEST_INVALID");
    execFileSync("mkfifo", [join(temporary(), "fifo")]);
    expect(await codeOf(openArchiveSource(join(temporary(), "fifo")))).toBe("REQUEST_INVALID");
  });

  it("follows a link that the user names", async () => {
    await writeFile(archivePath(), tarOf(...MEMBERS));
    await symlink("image.tar", join(temporary(), "link.tar"));
    await (await openArchiveSource(join(temporary(), "link.tar"))).close();
  });

  it("tells of bytes that changed or went away after it was opened", async () => {
    const source = await openBytes(tarOf(...MEMBERS));
    try {
      await truncate(archivePath(), 600);
      expect(await codeOf(source.resolve(manifest.descriptor.digest))).toBe("MANIFEST_INVALID");
      expect(await codeOf(source.fetchDocument(manifest.descriptor))).toBe("CONTENT_SIZE_MISMATCH");
      expect(await codeOf(source.entries())).toBe("MANIFEST_INVALID");
    } finally {
      await source.close();
    }
  });
});
