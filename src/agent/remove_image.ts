import { ShimError } from "../errors.ts";
import type { Digest } from "../image/digest.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import type { AgentContext } from "./agent_context.ts";
import { type RemovedFile, removedFile } from "./collect_cache.ts";

/** One name, or a document by its digest: an image under all its names, or one manifest of an index. */
export type RemoveImageTarget = { readonly reference: Reference } | { readonly digest: Digest };

export type RemovedImage = {
  readonly references: readonly string[];
  readonly digest: Digest;
  readonly removed: readonly RemovedFile[];
  readonly freedBytes: number;
};

/**
 * Removes an image from the cache: its name first, then what nobody else needs of it.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND; IN_USE when a machine is made from it, an operation under way needs it, or it is
 *   pinned; REQUEST_INVALID for the digest of a layer; LOCK_TIMEOUT, CANCELLED, BUSY, IO_ERROR
 */
export async function removeImage(
  context: AgentContext,
  target: RemoveImageTarget,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<RemovedImage> {
  const { names, digest } = await find(context, target);
  const wish = { names, digest: names.length === 0 ? digest : undefined };
  const { removals, leftWhy } = await context.collector.remove(wish, options);
  if (leftWhy !== null) {
    context.note(`the name is gone, files are left to "bootshim gc", because not all is clear: ${leftWhy}`);
  }
  return {
    references: names,
    digest,
    removed: removals.map(removedFile),
    freedBytes: removals.reduce((sum, removal) => sum + removal.sizeBytes, 0),
  };
}

async function find(
  context: AgentContext,
  target: RemoveImageTarget,
): Promise<{ names: readonly string[]; digest: Digest }> {
  if ("digest" in target) {
    const { digest } = target;
    const named = (await context.content.references()).filter((each) => each.descriptor.digest === digest);
    return { names: named.map((each) => each.name), digest };
  }
  const name = formatReference(target.reference);
  const found = await context.content.findReference(name);
  if (found) return { names: [name], digest: found.descriptor.digest };
  throw imageNotCached(name);
}

export function imageNotCached(name: string): ShimError {
  return new ShimError("IMAGE_NOT_FOUND", `Cannot find image "${name}" in the cache`, {
    details: { reference: name, remedy: "list what is there with: bootshim images" },
  });
}
