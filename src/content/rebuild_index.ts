import { join } from "node:path";
import { ShimError } from "../errors.ts";
import type { FileSystem } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { descriptorOf, type EntryJson, nameOf } from "./index_entry.ts";
import type { ReferenceRecords } from "./reference_record.ts";
import { blobPathIn, type StorePaths } from "./store_layout.ts";

/** What a damaged index was made anew from. */
export type RebuiltIndex = {
  readonly manifests: readonly EntryJson[];
  /** What the user should know of it. */
  readonly note: string;
};

export type Damage = {
  /** What is wrong with the index. */
  readonly error: ShimError;
  /** Entries that can still be read: those of others are kept. Empty when none can. */
  readonly entries: readonly EntryJson[];
};

/**
 * The index that our records tell of: an entry for each whose blob is there, and the foreign ones that can still be
 * read. Changes nothing; the caller holds the index's lock.
 *
 * @throws {ShimError} the damage itself when there is no record to go by, because an empty index would give all
 *   blobs up; errno errors pass
 */
export async function rebuildIndex(
  paths: StorePaths,
  { records, damage, fileSystem }: {
    readonly records: ReferenceRecords;
    readonly damage: Damage;
    readonly fileSystem: FileSystem;
  },
): Promise<RebuiltIndex> {
  const known = await records.list();
  if (known.records.length === 0) throw damage.error;
  const foreign = damage.entries.filter((entry) => nameOf(entry) === undefined);
  const manifests: EntryJson[] = [...foreign];
  for (const { entry } of known.records) {
    if (await isBlobThere(paths, { entry, fileSystem })) manifests.push(entry);
  }
  const own = manifests.length - foreign.length;
  const lost = known.records.length - own;
  const parts = [
    `The cache's index was damaged and has been made anew from ${own} records of images: ${damage.error.message}`,
    ...(lost > 0 ? [`${lost} records name a blob that is not there`] : []),
    ...(known.unreadable.length > 0 ? [`${known.unreadable.length} records cannot be read`] : []),
  ];
  return { manifests, note: parts.join("; ") };
}

async function isBlobThere(
  paths: StorePaths,
  { entry, fileSystem }: { readonly entry: EntryJson; readonly fileSystem: FileSystem },
): Promise<boolean> {
  try {
    const { digest, sizeBytes } = descriptorOf(entry, (why) => new ShimError("CACHE_LAYOUT_INVALID", why));
    const status = await fileSystem.lstat(blobPathIn(paths.blobs, digest));
    return status.kind === "file" && status.sizeBytes === sizeBytes;
  } catch (error) {
    if (error instanceof ShimError || errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** A name for the damaged file that is not taken, beside it: kept, because entries of others may be read off it by hand. */
export async function damagedName(paths: StorePaths, fileSystem: FileSystem): Promise<string> {
  const taken = new Set(await fileSystem.readdir(paths.images));
  for (let number = 1;; number++) {
    const name = `index.json.damaged-${number}`;
    if (!taken.has(name)) return join(paths.images, name);
  }
}
