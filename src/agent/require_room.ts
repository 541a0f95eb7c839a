import { ShimError } from "../errors.ts";
import type { AgentContext } from "./agent_context.ts";

/**
 * Makes sure that all that is missing of an image will fit, before its first byte is fetched: within the budget, if
 * there is one, and on the disk. Collects what nobody needs and, where a budget allows it, the least recently used images.
 *
 * @throws {ShimError} NO_SPACE with both numbers; IO_ERROR
 */
export async function requireRoom(
  context: AgentContext,
  missingBytes: number,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  try {
    await context.content.requireRoom(missingBytes);
  } catch (error) {
    if (!(error instanceof ShimError) || error.code !== "NO_SPACE") throw error;
    await makeRoom(context, missingBytes, { signal });
    await context.content.requireRoom(missingBytes);
    return;
  }
  const { maxBytes, keepFreeBytes } = context.cacheBudget;
  if (maxBytes !== null || keepFreeBytes !== null) await makeRoom(context, missingBytes, { signal });
}

/** A collection that fails only means that nothing is freed: the cache is used on, as full as it is. */
async function makeRoom(
  context: AgentContext,
  missingBytes: number,
  { signal }: { readonly signal: AbortSignal | undefined },
): Promise<void> {
  const { maxBytes, keepFreeBytes, minAgeMs } = context.cacheBudget;
  try {
    const { images } = await context.collector.collect({
      maxBytes: maxBytes === null ? null : Math.max(0, maxBytes - missingBytes),
      // Without a reserve that the user asked for, no image is given up for another.
      keepFreeBytes: keepFreeBytes === null ? null : keepFreeBytes + missingBytes,
      minAgeMs,
      signal,
    });
    for (const { name } of images) context.note(`image "${name}" was given up to make room`);
  } catch (error) {
    if (!(error instanceof ShimError) || error.code === "CANCELLED") throw error;
    context.note(`nothing could be freed in the cache: ${error.message}`);
  }
}
