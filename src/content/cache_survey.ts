import { join } from "node:path";
import { runAtMost } from "../host/at_most.ts";
import { readdirIfThere } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { type Digest, DIGEST_ALGORITHMS, digestIfAny } from "../image/digest.ts";
import { type EntryJson, nameOf } from "./index_entry.ts";
import type { Needs } from "./lease.ts";
import { Reachability, type Root } from "./reachable.ts";
import type { StorePaths } from "./store_layout.ts";

/** How many documents are read side by side. */
const PARALLEL_READS = 16;

/** Somebody outside of the cache who needs blobs of it: a machine. */
export type CacheUser = {
  readonly id: string;
  /** What it was made from; must be in the cache. */
  readonly manifestDigest: Digest;
  /** Blobs that it reads as long as it lives. */
  readonly needs: readonly Digest[];
  /** Whatever else it names. */
  readonly digests: readonly Digest[];
};

/** Who needs something, read from disk while nobody can begin to need more. */
export type CacheSurvey = {
  readonly entries: readonly EntryJson[];
  readonly users: readonly CacheUser[];
  readonly leased: Needs;
};

/** An entry of the index, and what it leads to. */
export type SurveyedEntry = {
  /** Undefined for an entry that is not ours. */
  readonly name: string | undefined;
  readonly digest: Digest;
  readonly entry: EntryJson;
  readonly all: ReadonlySet<Digest>;
  /** Indexes and manifests only. */
  readonly documents: ReadonlySet<Digest>;
};

export type Reached = {
  readonly entries: readonly SurveyedEntry[];
  /** What machines and operations under way need. */
  readonly held: ReadonlySet<Digest>;
  /** Of these, the manifests of machines, and all documents of operations: an image that has one of them is in use. */
  readonly heldDocuments: ReadonlySet<Digest>;
  /** Of these, those of operations: a lease that names an index means what is in it, too. */
  readonly leasedDocuments: ReadonlySet<Digest>;
  /** All that these operations need. */
  readonly leasedBlobs: ReadonlySet<Digest>;
};

/**
 * Follows every entry, user and lease down to the last blob.
 *
 * @param options.cut counts as if no entry named it
 * @throws {ShimError} CACHE_LAYOUT_INVALID, CONTENT_CORRUPT when something on the way cannot be read: then nobody knows
 *   what is needed; errno errors pass
 */
export async function reachAll(
  paths: StorePaths,
  survey: CacheSurvey,
  options: {
    readonly fileSystem: FileSystem;
    readonly signal?: AbortSignal | undefined;
    readonly cut?: Digest;
  },
): Promise<Reached> {
  const reachability = new Reachability(paths, options);
  await reachability.bringIn(survey.entries.flatMap(({ digest }) => digestIfAny(digest) ?? []));
  const entries: SurveyedEntry[] = [];
  await runAtMost(PARALLEL_READS, survey.entries, { signal: options.signal }, async (entry) => {
    const digest = digestIfAny(entry["digest"]);
    if (!digest) return;
    const name = nameOf(entry);
    // What others wrote may be a layout that they have not completed.
    const reached = await reachability.from({ digest, isRequired: name !== undefined });
    entries.push({ entry, digest, name, ...reached });
  });
  const held = new Set<Digest>();
  const leased = new Set(survey.leased);
  const leasedDocuments = new Set<Digest>();
  const leasedBlobs = new Set<Digest>();
  const roots: Root[] = [
    ...survey.users.map((user) => ({ digest: user.manifestDigest, isRequired: true })),
    ...[...survey.users.flatMap((user) => [...user.needs, ...user.digests]), ...leased].map((digest) => ({
      digest,
      isRequired: false,
    })),
  ];
  await runAtMost(PARALLEL_READS, roots, { signal: options.signal }, async (root) => {
    const { all, documents } = await reachability.from(root);
    for (const digest of all) held.add(digest);
    if (!leased.has(root.digest)) return;
    for (const digest of documents) leasedDocuments.add(digest);
    for (const digest of all) leasedBlobs.add(digest);
  });
  const heldDocuments = new Set([...survey.users.map((user) => user.manifestDigest), ...leasedDocuments]);
  return { entries, held, heldDocuments, leasedDocuments, leasedBlobs };
}

/** Everything that is needed: by images, machines and operations under way. */
export function neededBlobs(
  { held }: Reached,
  entries: readonly SurveyedEntry[],
): Set<Digest> {
  const needed = new Set(held);
  for (const { all } of entries) for (const digest of all) needed.add(digest);
  return needed;
}

/**
 * The files in `DIRECTORY/ALGORITHM/` that are named after a digest, alone or with an ending; other names are somebody
 * else's. Rejects with an errno error.
 */
export async function filesByDigest(
  directory: string,
  fileSystem: FileSystem,
): Promise<Map<Digest, readonly string[]>> {
  const files = new Map<Digest, readonly string[]>();
  for (const algorithm of DIGEST_ALGORITHMS) {
    const folder = join(directory, algorithm);
    for (const name of await readdirIfThere(folder, fileSystem)) {
      const end = name.indexOf(".");
      const digest = digestIfAny(`${algorithm}:${end === -1 ? name : name.slice(0, end)}`);
      if (!digest) continue;
      const others = files.get(digest);
      // Not joined: these are forty thousand, and what was listed needs no cleaning.
      const path = `${folder}/${name}`;
      files.set(digest, others ? [...others, path] : [path]);
    }
  }
  return files;
}
