import { basename, join } from "node:path";
import { readdirIfThere, statusIfThere, unlinkIfThere } from "../host/durable.ts";
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

/** Least age in milliseconds; what is younger stays. By the files' own time of change, so it can only spare. */
export type Ages = { readonly anyMs: number; readonly partialMs: number };

export type FindOptions = {
  readonly needed: ReadonlySet<Digest>;
  readonly ages: Ages;
  readonly nowMs: number;
  readonly fileSystem: FileSystem;
};

/**
 * Everything in the cache that nobody needs: blobs, unpacked disks, interrupted transfers, quarantined files. Changes
 * nothing. Rejects with an errno error.
 */
export async function findRemovals(paths: StorePaths, options: FindOptions): Promise<Removal[]> {
  const derived = join(paths.root, "derived");
  const found = [
    ...await removalsIn(paths.blobs, {
      ...options,
      kind: "blob",
      beside: (digest) => [verdictPath(paths, digest)],
      lock: () => null,
      ageMs: options.ages.anyMs,
    }),
    ...await removalsIn(derived, {
      ...options,
      kind: "derived",
      beside: () => [],
      lock: (digest) => lockPath(paths, "derived", digest),
      ageMs: options.ages.anyMs,
    }),
    ...await looseRemovals(paths, options),
  ];
  return found.sort((one, other) => one.digest < other.digest ? -1 : 1);
}

type InFolder = FindOptions & {
  readonly kind: "blob" | "derived";
  readonly lock: (digest: Digest) => string | null;
  readonly ageMs: number;
  /** Files elsewhere that mean nothing without it. */
  readonly beside: (digest: Digest) => readonly string[];
};

/** `DIRECTORY/ALGORITHM/ENCODED[.ENDING]` of digests that nobody needs. */
async function removalsIn(directory: string, options: InFolder): Promise<Removal[]> {
  const { needed, kind, lock } = options;
  const removals: Removal[] = [];
  const all = await filesByDigest(directory, options.fileSystem);
  await runAtMost(PARALLEL_LOOKS, all, {}, async ([digest, files]) => {
    if (needed.has(digest)) return;
    // A blob has no ending. Of an unpacked disk the record goes first: without it the disk does not count.
    const paths = kind === "blob"
      ? files.filter((path) => basename(path) === digestEncoded(digest)).concat(options.beside(digest))
      : files.toSorted((one) => one.endsWith(".json") ? -1 : 1);
    const sizeBytes = await sizeOf(paths, options);
    if (sizeBytes !== undefined) removals.push({ kind, digest, sizeBytes, paths, lockPath: lock(digest) });
  });
  return removals;
}

/** `ingest/ALG-ENC.partial` with its `.json`, and `quarantine/ALG-ENC.N`. */
async function looseRemovals(paths: StorePaths, options: FindOptions): Promise<Removal[]> {
  const { ages, needed, fileSystem } = options;
  const removals: Removal[] = [];
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
      if (kind === "partial" && needed.has(digest)) continue;
      const sizeBytes = await sizeOf(all, { ...options, ageMs: Math.max(ages.anyMs, ages.partialMs) });
      const lock = kind === "partial" ? lockPath(paths, "blob", digest) : null;
      if (sizeBytes !== undefined) removals.push({ kind, digest, sizeBytes, paths: all, lockPath: lock });
    }
  }
  return removals;
}

/** Undefined when there is nothing any more, when one is too young, or is no file. */
async function sizeOf(
  paths: readonly string[],
  { nowMs, ageMs, fileSystem }: Pick<InFolder, "nowMs" | "ageMs" | "fileSystem">,
): Promise<number | undefined> {
  let sizeBytes: number | undefined;
  for (const path of paths) {
    const status = await statusIfThere(path, fileSystem);
    if (!status) continue;
    if (status.kind === "directory") return undefined;
    // Zero spares nothing, whatever the clock says.
    if (ageMs > 0 && nowMs - status.modifiedMs < ageMs) return undefined;
    sizeBytes = (sizeBytes ?? 0) + status.allocatedBytes;
  }
  return sizeBytes;
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
