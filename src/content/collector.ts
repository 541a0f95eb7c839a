import { resolve } from "node:path";
import { ShimError } from "../errors.ts";
import { type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { statusIfThere } from "../host/durable.ts";
import { withLock } from "../host/flock.ts";
import { withIoErrors } from "../host/io_error.ts";
import type { Digest } from "../image/digest.ts";
import { runAtMost } from "../host/at_most.ts";
import {
  type CacheSurvey,
  type CacheUser,
  neededBlobs,
  reachAll,
  type Reached,
  type SurveyedEntry,
} from "./cache_survey.ts";
import { type CacheItem, removableOf, type Removal, removeFiles, surveyItems } from "./collection.ts";
import { blobMissing } from "./blob_file.ts";
import { removeStrayVerdicts } from "./blob_verdict.ts";
import { chooseVictims } from "./eviction.ts";
import { isPinned } from "./index_entry.ts";
import { Leases } from "./lease.ts";
import { Reachability } from "./reachable.ts";
import { type RemoveWish, requireNoPart, requireUnclaimed, requireUnused } from "./removable.ts";
import { ReferenceIndex } from "./reference_index.ts";
import { blobPathIn, LOCK_TIMEOUT_MS, type StorePaths, storePaths } from "./store_layout.ts";

/** An interrupted transfer may be gone on with for a day. */
export const PARTIAL_AGE_MS = 24 * 60 * 60 * 1000;
/** How many files are looked at or removed side by side. */
const PARALLEL_FILES = 16;

export type CollectorOptions = {
  readonly rootDirectory: string;
  /** Who needs blobs from outside of the cache, read anew at each call. What it throws ends the collection. */
  readonly users: () => Promise<readonly CacheUser[]>;
  readonly fileSystem?: FileSystem;
  /** Told when a damaged index was made anew. */
  readonly onWarning?: ((message: string) => void) | undefined;
};

export type CollectWish = {
  /** Say what would go, and change nothing. */
  readonly isDryRun?: boolean;
  /** What blobs, unpacked disks and interrupted transfers may take on disk together; null: whatever they like. */
  readonly maxBytes?: number | null;
  /** What shall be free on the cache's file system; null: whatever there is. */
  readonly keepFreeBytes?: number | null;
  /** Spares what was used or written more recently; null: transfers that were interrupted within a day, nothing else. */
  readonly minAgeMs?: number | null;
  readonly signal?: AbortSignal | undefined;
};

export type Collected = {
  readonly images: readonly { readonly name: string; readonly digest: Digest; readonly lastUseMs: number }[];
  readonly removals: readonly Removal[];
  /** What the removals took on disk. */
  readonly freedBytes: number;
  /** Of the wished budget, what is still missing; 0 when it is kept, or there was none. */
  readonly missingBytes: number;
};

/**
 * Frees what nobody needs. All is read from disk anew each time, while no operation can begin to need more; when any
 * of it cannot be read, nothing is removed. Names go first, files after them, so whatever happens between leaves
 * files that nobody needs at worst.
 *
 * Every method throws {ShimError} CACHE_LAYOUT_INVALID, CONTENT_CORRUPT when something cannot be read; LOCK_TIMEOUT,
 * CANCELLED, NO_SPACE, BUSY, IO_ERROR; and what `users` throws.
 */
export class Collector {
  readonly #options: CollectorOptions;
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;
  readonly #index: ReferenceIndex;
  readonly #leases: Leases;

  constructor(options: CollectorOptions) {
    const { rootDirectory, fileSystem = nodeFileSystem, onWarning } = options;
    this.#options = options;
    this.#paths = storePaths(resolve(rootDirectory));
    this.#fileSystem = fileSystem;
    this.#index = new ReferenceIndex(this.#paths, { fileSystem, onRebuilt: onWarning, isCollector: true });
    this.#leases = new Leases({ rootDirectory, fileSystem });
  }

  /** Removes what is needed by no image, machine or operation; and images, where a budget demands it. */
  async collect(wish: CollectWish = {}): Promise<Collected> {
    const { isDryRun = false, signal } = wish;
    return await this.#alone("collect what nobody needs", signal, async () => {
      const reached = await this.#reach(await this.#survey(), { signal });
      const plan = await this.#plan(reached, wish);
      if (isDryRun) return plan;
      await this.#index.removeStrays();
      await this.#index.remove(plan.images.map((image) => image.name));
      const removals = await this.#removeAll(plan.removals, signal);
      await removeStrayVerdicts(this.#paths, this.#fileSystem);
      return { ...plan, removals, freedBytes: sumOf(removals) };
    });
  }

  /**
   * Forgets names, or gives a document up; then removes what of them nobody else needs. When that cannot be told,
   * names are forgotten all the same, because removing a damaged image is the remedy; files are left to
   * {@link collect} then.
   *
   * @returns what was removed, and why files were left
   * @throws {ShimError} IN_USE when a machine or an operation under way needs it, or it is pinned; IMAGE_NOT_FOUND when
   *   the document is not there; REQUEST_INVALID when it is no document but a part of an image
   */
  async remove(
    wish: RemoveWish,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<{ removals: readonly Removal[]; leftWhy: string | null }> {
    return await this.#alone("remove an image", signal, async () => {
      const { names, digest } = wish;
      const survey = await this.#survey();
      requireUnclaimed(survey, wish);
      const isGone = ({ name }: SurveyedEntry) => name !== undefined && names.includes(name);
      let removals: readonly Removal[] = [];
      let leftWhy: string | null = null;
      try {
        const before = await this.#reach(survey, { signal });
        const others = before.entries.filter((each) => !isGone(each));
        const targets = before.entries.filter(isGone);
        const { leasedDocuments: leased, leasedBlobs } = before;
        requireUnused(survey, { targets, others, digest, leased, leasedBlobs });
        const candidates = new Set(targets.flatMap((each) => [...each.all]));
        if (digest) {
          requireNoPart(digest, before);
          for (const each of await this.#belowOf(digest)) candidates.add(each);
        }
        const after = digest ? await this.#reach(survey, { signal, cut: digest }) : before;
        const needed = neededBlobs(after, after.entries.filter((each) => !isGone(each)));
        const found = await this.#items(needed);
        removals = found.filter(({ kind, digest: each }) => candidates.has(each) && kind !== "quarantined");
      } catch (error) {
        const isUnclear = error instanceof ShimError &&
          (error.code === "CONTENT_CORRUPT" || error.code === "CACHE_LAYOUT_INVALID");
        if (!isUnclear || names.length === 0) throw error;
        leftWhy = error.message;
      }
      await this.#index.remove(names);
      return { removals: await this.#removeAll(removals, signal), leftWhy };
    });
  }

  /** Names of which index and record disagree. */
  async compareRecords(): Promise<{ name: string; why: string }[]> {
    return await this.#alone("compare names", undefined, () => this.#index.compareRecords());
  }

  /** Makes every name's record say what the index says. */
  async writeRecords(): Promise<void> {
    await this.#alone("write the records of names", undefined, () => this.#index.writeRecords());
  }

  /** Whether an image, a machine or an operation under way needs a blob. */
  async isNeeded(digest: Digest): Promise<boolean> {
    return await this.#alone("look who needs what", undefined, async () => {
      const reached = await this.#reach(await this.#survey(), {});
      return neededBlobs(reached, reached.entries).has(digest);
    });
  }

  async #belowOf(digest: Digest): Promise<ReadonlySet<Digest>> {
    const path = blobPathIn(this.#paths.blobs, digest);
    if (!await statusIfThere(path, this.#fileSystem)) throw blobMissing(digest, path);
    const reachability = new Reachability(this.#paths, { fileSystem: this.#fileSystem });
    return (await reachability.from({ digest, isRequired: true })).all;
  }

  /** Holds new leases, names and pins off meanwhile. */
  async #alone<T>(action: string, signal: AbortSignal | undefined, body: () => Promise<T>): Promise<T> {
    const { collectLock: path, root } = this.#paths;
    const lock = {
      mode: "exclusive",
      timeoutMs: LOCK_TIMEOUT_MS,
      signal,
      fileSystem: this.#fileSystem,
    } as const;
    return await withIoErrors({ action, path: root }, () => withLock(path, lock, body));
  }

  async #survey(): Promise<CacheSurvey> {
    // In this order: who drops a lease has written a record before, which is then there to be read.
    const leased = await this.#leases.living();
    const entries = await this.#index.entries();
    for (const file of await this.#index.strays(entries)) await this.#index.records.requireReadable(file);
    return { leased, entries, users: await this.#options.users() };
  }

  async #reach(
    survey: CacheSurvey,
    options: { readonly signal?: AbortSignal | undefined; readonly cut?: Digest },
  ): Promise<Reached> {
    return await reachAll(this.#paths, survey, { ...options, fileSystem: this.#fileSystem });
  }

  async #plan(reached: Reached, wish: CollectWish): Promise<Collected> {
    const { minAgeMs = null } = wish;
    const ages = { anyMs: minAgeMs ?? 0, partialMs: minAgeMs ?? PARTIAL_AGE_MS };
    const needed = neededBlobs(reached, reached.entries);
    const nowMs = Date.now();
    const hasBudget = (wish.maxBytes ?? wish.keepFreeBytes ?? null) !== null;
    // For a budget everything counts.
    const everything = await this.#items(hasBudget ? new Set() : needed);
    const removals = removableOf(everything, { needed, ages, nowMs });
    const wantedBytes = await this.#wantedBytes(wish, { removals, everything });
    if (wantedBytes <= 0) return { images: [], removals, freedBytes: sumOf(removals), missingBytes: 0 };
    const sizes = sizesOf(everything);
    const candidates = await this.#candidates(reached, minAgeMs ?? 0);
    const victims = chooseVictims(candidates, {
      wantedBytes,
      kept: reached.held,
      bytesOf: (digest) => sizes.get(digest) ?? 0,
    });
    if (victims.length === 0) {
      return { images: [], removals, freedBytes: sumOf(removals), missingBytes: wantedBytes };
    }
    const victimNames = new Set(victims.map((victim) => victim.name));
    const left = reached.entries.filter((each) => !victimNames.has(each.name ?? ""));
    // What an image needed a moment ago has no age of its own.
    const more = removableOf(everything, {
      needed: neededBlobs(reached, left),
      ages: { ...ages, anyMs: 0 },
      nowMs,
    });
    const known = new Set(removals.flatMap((removal) => removal.paths));
    const all = [
      ...removals,
      ...more.filter((each) => needed.has(each.digest) && !known.has(each.paths[0] ?? "")),
    ];
    const gained = sumOf(all) - sumOf(removals);
    return {
      images: victims.map(({ name, digest, lastUseMs }) => ({ name, digest, lastUseMs })),
      removals: all,
      freedBytes: sumOf(all),
      missingBytes: Math.max(0, wantedBytes - gained),
    };
  }

  /** How much more than these must go. */
  async #wantedBytes(
    { maxBytes = null, keepFreeBytes = null }: CollectWish,
    { removals, everything }: {
      readonly removals: readonly Removal[];
      readonly everything: readonly Removal[];
    },
  ): Promise<number> {
    const freedBytes = sumOf(removals);
    let wantedBytes = 0;
    if (maxBytes !== null) {
      wantedBytes = sumOf(everything) - freedBytes - maxBytes;
    }
    if (keepFreeBytes !== null) {
      const availableBytes = await this.#fileSystem.availableBytes(this.#paths.blobs);
      wantedBytes = Math.max(wantedBytes, keepFreeBytes - availableBytes - freedBytes);
    }
    return wantedBytes;
  }

  async #candidates({ entries, heldDocuments }: Reached, minAgeMs: number) {
    const nowMs = Date.now();
    const own = entries.filter((each): each is SurveyedEntry & { name: string } => each.name !== undefined);
    const lastUses = new Map<string, number>();
    await runAtMost(PARALLEL_FILES, own, {}, async ({ name }) => {
      lastUses.set(name, (await this.#index.records.lastUse(name))?.modifiedMs ?? 0);
    });
    return own.map(({ name, digest, entry, all, documents }) => {
      const lastUseMs = lastUses.get(name) ?? 0;
      const isKept = isPinned(entry) || !documents.isDisjointFrom(heldDocuments) ||
        (minAgeMs > 0 && nowMs - lastUseMs < minAgeMs);
      return { name, digest, lastUseMs, blobs: all, isKept };
    });
  }

  async #items(except: ReadonlySet<Digest>): Promise<CacheItem[]> {
    return await surveyItems(this.#paths, { except, fileSystem: this.#fileSystem });
  }

  async #removeAll(removals: readonly Removal[], signal: AbortSignal | undefined): Promise<Removal[]> {
    const removed = new Set<Removal>();
    await runAtMost(PARALLEL_FILES, removals, { signal }, async (removal) => {
      if (signal?.aborted) {
        throw new ShimError("CANCELLED", "Cannot remove all: cancelled", { cause: signal.reason });
      }
      if (await removeFiles(removal, this.#fileSystem)) removed.add(removal);
    });
    return removals.filter((removal) => removed.has(removal));
  }
}

function sumOf(removals: readonly Removal[]): number {
  return removals.reduce((sum, removal) => sum + removal.sizeBytes, 0);
}

/** Of everything under a digest: the blob, and its unpacked disk. */
function sizesOf(removals: readonly Removal[]): Map<Digest, number> {
  const sizes = new Map<Digest, number>();
  for (const { kind, digest, sizeBytes } of removals) {
    if (kind === "blob" || kind === "derived") sizes.set(digest, (sizes.get(digest) ?? 0) + sizeBytes);
  }
  return sizes;
}
