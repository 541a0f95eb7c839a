import type { Digest } from "../image/digest.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import type { AgentContext } from "./agent_context.ts";
import { imageNotCached } from "./remove_image.ts";

export type PinnedImage = { readonly reference: string; readonly digest: Digest; readonly pinned: boolean };

/**
 * Keeps a cached image whatever space is wanted, or no longer. The name carries the pin, also when it comes to stand
 * for another image.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND; LOCK_TIMEOUT, NO_SPACE, BUSY, IO_ERROR
 */
export async function pinImage(
  context: AgentContext,
  reference: Reference,
  pinned: boolean,
): Promise<PinnedImage> {
  const name = formatReference(reference);
  const descriptor = await context.content.setPinned(name, pinned);
  if (!descriptor) throw imageNotCached(name);
  return { reference: name, digest: descriptor.digest, pinned };
}
