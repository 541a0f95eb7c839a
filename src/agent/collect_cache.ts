import type { Removal } from "../content/collection.ts";
import type { Digest } from "../image/digest.ts";
import type { AgentContext, CacheBudget } from "./agent_context.ts";

export type CollectCacheWish = Partial<CacheBudget> & { readonly isDryRun: boolean };

export type RemovedFile = {
  readonly kind: Removal["kind"];
  readonly digest: Digest;
  readonly sizeBytes: number;
};

/** What `gc` did, or would do. */
export type CollectedCache = {
  readonly dryRun: boolean;
  readonly images: readonly {
    readonly reference: string;
    readonly digest: Digest;
    /** RFC 3339, UTC. */
    readonly lastUsedAt: string;
  }[];
  readonly removed: readonly RemovedFile[];
  /** What the removed files took on disk. */
  readonly freedBytes: number;
  /** How far the cache is above its budget still; 0 when it keeps it, or has none. */
  readonly missingBytes: number;
};

/**
 * Removes what nobody needs and, where a budget demands it, the least recently used images that no machine, pin or
 * operation needs. What the wish leaves open the configuration says.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID, CONTENT_CORRUPT when something cannot be read: nothing was removed then;
 *   LOCK_TIMEOUT, CANCELLED, BUSY, IO_ERROR
 */
export async function collectCache(
  context: AgentContext,
  { isDryRun, ...budget }: CollectCacheWish,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<CollectedCache> {
  const { cacheBudget } = context;
  // Machines of runs that were killed need nothing any more.
  if (!isDryRun) await context.machines.sweep();
  const collected = await context.collector.collect({
    isDryRun,
    maxBytes: budget.maxBytes ?? cacheBudget.maxBytes,
    keepFreeBytes: budget.keepFreeBytes ?? cacheBudget.keepFreeBytes,
    minAgeMs: budget.minAgeMs ?? cacheBudget.minAgeMs,
    signal,
  });
  return {
    dryRun: isDryRun,
    images: collected.images.map(({ name, digest, lastUseMs }) => ({
      reference: name,
      digest,
      lastUsedAt: new Date(lastUseMs).toISOString(),
    })),
    removed: collected.removals.map(removedFile),
    freedBytes: collected.freedBytes,
    missingBytes: collected.missingBytes,
  };
}

export function removedFile({ kind, digest, sizeBytes }: Removal): RemovedFile {
  return { kind, digest, sizeBytes };
}
