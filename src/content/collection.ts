import { join } from "node:path";
import { footprintIfThere, readdirIfThere, unlinkIfThere } from "../host/durable.ts";
import { runAtMost } from "../host/at_most.ts";
import type { FileSystem } from "../host/file_system.ts";
import { type HeldLock, tryLock } from "../host/flock.ts";
import { lockDirectoryOf } from "../host/root_directory.ts";
import { type Digest, digestAlgorithm, digestEncoded, parseDigest } from "../image/digest.ts";
import { filesByDigest } from "./cache_survey.ts";
import { verdictPath } from "./blob_verdict.ts";
import type { StorePaths } from "./store_layout.ts";

/** How many files are looked at side by side. */
const PARALLEL_LOOKS = 16;

/** What a file that nobody needs is. */
export type RemovalKind = "blob" | "derived" | "partial" | "quarantined";

/** Files that go together. */
export type Removal = {
  readonly kind: RemovalKind;
  readonly digest: Digest;
  /** What they take on disk. */
  readonly sizeBytes: number;
  /** Absolute, in the order in which they go: last the one that gives the others their meaning. */
  readonly paths: readonly string[];
  /** Who has this lock is busy with the files; null where nobody can be. */
  readonly lockPath: string | null;
};

/** Files that go together, as they were found. */
export type CacheItem = Removal & {
  /** When the youngest of them was written, milliseconds since 1970. */
  readonly writtenMs: number;
};

/** Least age in milliseconds; what is younger stays. By the files' own time of change, so it can only spare. */
export type Ages = { readonly anyMs: number; readonly partialMs: number };

export type SurveyOptions = {
  /** Digests that are needed: nothing is asked about their files, which are most. */
  readonly except: ReadonlySet<Digest>;
  readonly fileSystem: FileSystem;
};

/**
 * Everything in the cache that could go: blobs, unpacked disks, interrupted transfers, quarantined files, by digest.
 * Changes nothing. Rejects with an errno error.
 */
export async function surveyItems(paths: StorePaths, options: SurveyOptions): Promise<CacheItem[]> {
  const found = [
    ...await blobItems(paths, options),
    ...await derivedItems(paths, options),
    ...await looseItems(paths, options),
  ];
  return found.sort((one, other) => one.digest < other.digest ? -1 : 1);
}

/** Of what was found, what nobody needs and no age spares. Zero spares nothing, whatever the clock says. */
export function removableOf(
  items: readonly CacheItem[],
  { needed, ages, nowMs }: {
    readonly needed: ReadonlySet<Digest>;
    readonly ages: Ages;
    readonly nowMs: number;
  },
): CacheItem[] {
  return items.filter(({ kind, digest, writtenMs }) => {
    // What was put aside is needed by nobody, whatever was named so.
    if (kind !== "quarantined" && needed.has(digest)) return false;
    const isLoose = kind === "partial" || kind === "quarantined";
    const ageMs = isLoose ? Math.max(ages.anyMs, ages.partialMs) : ages.anyMs;
    return ageMs <= 0 || nowMs - writtenMs >= ageMs;
  });
}

/** `BLOBS/ALGORITHM/ENCODED`, with what was found out about it. */
async function blobItems(paths: StorePaths, { except, fileSystem }: SurveyOptions): Promise<CacheItem[]> {
  const items: CacheItem[] = [];
  const all = await filesByDigest(paths.blobs, fileSystem);
  // Listed once: asking by the thousand for what is not there takes longer than all the rest.
  const verdicts = await filesByDigest(paths.verdicts, fileSystem);
  await runAtMost(PARALLEL_LOOKS, all, {}, async ([digest, files]) => {
    if (except.has(digest)) return;
    // A blob has no ending.
    const own = files.filter((path) => path.endsWith(digestEncoded(digest)));
    const beside = verdictPath(paths, digest);
    const found = await lookAt(verdicts.has(digest) ? [...own, beside] : own, fileSystem);
    if (found) items.push({ kind: "blob", digest, ...found, paths: [...own, beside], lockPath: null });
  });
  return items;
}

/** `ROOT/derived/ALGORITHM/ENCODED.ENDING`: unpacked disks with their records. */
async function derivedItems(paths: StorePaths, { except, fileSystem }: SurveyOptions): Promise<CacheItem[]> {
  const items: CacheItem[] = [];
  const all = await filesByDigest(join(paths.root, "derived"), fileSystem);
  await runAtMost(PARALLEL_LOOKS, all, {}, async ([digest, files]) => {
    if (except.has(digest)) return;
    // The record goes first: without it the disk does not count.
    const inOrder = files.toSorted((one) => one.endsWith(".json") ? -1 : 1);
    const found = await lookAt(inOrder, fileSystem);
    const lock = lockPath(paths, "derived", digest);
    if (found) items.push({ kind: "derived", digest, ...found, paths: inOrder, lockPath: lock });
  });
  return items;
}

/** `ingest/ALG-ENC.partial` with its `.json`, and `quarantine/ALG-ENC.N`. */
async function looseItems(paths: StorePaths, { except, fileSystem }: SurveyOptions): Promise<CacheItem[]> {
  const items: CacheItem[] = [];
  const places = [["partial", paths.ingest], ["quarantined", paths.quarantine]] as const;
  for (const [kind, directory] of places) {
    const files = new Map<Digest, string[]>();
    for (const name of await readdirIfThere(directory, fileSystem)) {
      const digest = digestOfName(name);
      if (!digest || (kind === "partial" && !/\.(?:partial|json)$/.test(name))) continue;
      files.set(digest, [...files.get(digest) ?? [], join(directory, name)]);
    }
    for (const [digest, all] of files) {
      // What an operation under way needs it may be about to go on with.
      if (kind === "partial" && except.has(digest)) continue;
      const found = await lookAt(all, fileSystem);
      const lock = kind === "partial" ? lockPath(paths, "blob", digest) : null;
      if (found) items.push({ kind, digest, ...found, paths: all, lockPath: lock });
    }
  }
  return items;
}

/** Undefined when there is nothing any more, or one is no file. */
async function lookAt(
  paths: readonly string[],
  fileSystem: FileSystem,
): Promise<Pick<CacheItem, "sizeBytes" | "writtenMs"> | undefined> {
  let found: Pick<CacheItem, "sizeBytes" | "writtenMs"> | undefined;
  for (const path of paths) {
    const status = await footprintIfThere(path, fileSystem);
    if (!status) continue;
    if (status.kind === "directory") return undefined;
    found = {
      sizeBytes: (found?.sizeBytes ?? 0) + status.allocatedBytes,
      writtenMs: Math.max(found?.writtenMs ?? 0, status.modifiedMs),
    };
  }
  return found;
}

/**
 * Removes the files of one, unless somebody is busy with them.
 *
 * @returns whether they are gone now. Rejects with an errno error
 */
export async function removeFiles(
  { paths, lockPath: path }: Removal,
  fileSystem: FileSystem,
): Promise<boolean> {
  let lock: HeldLock | undefined;
  if (path !== null) {
    lock = await tryLock(path, { mode: "exclusive", fileSystem });
    if (!lock) return false;
  }
  try {
    for (const each of paths) await unlinkIfThere(each, fileSystem);
    return true;
  } finally {
    await lock?.release();
  }
}

function lockPath({ root }: StorePaths, what: "blob" | "derived", digest: Digest): string {
  return join(lockDirectoryOf(root), `${what}-${digestAlgorithm(digest)}-${digestEncoded(digest)}`);
}

/** Of `ALG-ENC.ENDING`. */
function digestOfName(name: string): Digest | undefined {
  const [, algorithm, encoded] = /^(sha256|sha512)-([a-f0-9]+)\./.exec(name) ?? [];
  try {
    return algorithm === undefined ? undefined : parseDigest(`${algorithm}:${encoded}`);
  } catch {
    return undefined;
  }
}
