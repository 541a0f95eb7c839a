import { createHash } from "node:crypto";
import { createReadStream, existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ContentStore } from "../../src/content/content_store.ts";
import { DerivedDisks } from "../../src/content/derived_disks.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import { type Blob, blobOf } from "./blobs.ts";
import { contentOf } from "./streams.ts";

export type DerivedKit = { readonly content: ContentStore; readonly disks: DerivedDisks };

export async function openDerivedDisks(
  rootDirectory: string,
  options: { fileSystem?: FileSystem; groupId?: number | null } = {},
): Promise<DerivedKit> {
  const { fileSystem = nodeFileSystem, groupId = null } = options;
  const content = await ContentStore.open({ rootDirectory, groupId, fileSystem });
  return { content, disks: new DerivedDisks({ rootDirectory, groupId, content, fileSystem }) };
}

/** Puts a packed layer into the cache. */
export async function storeLayer({ content }: DerivedKit, bytes: Uint8Array): Promise<Blob["descriptor"]> {
  const layer = blobOf(bytes);
  await content.ingest(layer.descriptor, contentOf(layer.bytes));
  return layer.descriptor;
}

/**
 * Says what is wrong with the unpacked disks of a root, knowing the contract and nothing of the code: whole ones with a
 * true record, and nothing else. After a kill, or a failure at the very end, a disk may still lack its record.
 */
export function derivedProblems(root: string, { isAfterKill = false } = {}): string[] {
  const problems: string[] = [];
  const directory = join(root, "derived");
  if (!isAfterKill) {
    const leftOver = readdirSync(join(root, "ingest"));
    if (leftOver.length > 0) problems.push(`ingest/ holds ${leftOver}`);
  }
  if (!existsSync(directory)) return problems;
  for (const algorithm of readdirSync(directory)) {
    for (const name of readdirSync(join(directory, algorithm))) {
      const path = join(directory, algorithm, name);
      const [, encoded, kind] = /^([a-f0-9]{64,128})\.(raw|json)$/.exec(name) ?? [];
      if (kind === "raw") {
        if ((lstatSync(path).mode & 0o7777) !== 0o400) problems.push(`${name} has another mode`);
      } else if (kind === "json") {
        const record = JSON.parse(readFileSync(path, "utf8"));
        const disk = readFileSync(join(directory, algorithm, `${encoded}.raw`));
        const sha256 = createHash("sha256").update(disk).digest("hex");
        if (record.source !== `${algorithm}:${encoded}`) problems.push(`${name} is of ${record.source}`);
        if (record.sizeBytes !== disk.length) problems.push(`${name} says ${record.sizeBytes} bytes`);
        if (record.sha256 !== sha256) problems.push(`${name} says ${record.sha256}`);
      } else if (!isAfterKill) problems.push(`derived/ holds ${name}`);
    }
  }
  return problems;
}

/** Bytes that a file takes on its file system. */
export function allocatedBytes(path: string): number {
  return 512 * lstatSync(path).blocks;
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest("hex");
}
