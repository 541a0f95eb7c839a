import { toShimError } from "../errors.ts";
import type { Repository } from "./repository.ts";
import { isPassing } from "./resume.ts";

/**
 * Runs `read` again when what is wrong came from a mirror: another place may have it right. Not a second try of the
 * same: each time there is one place less, and the registry's own word is the last.
 *
 * @param path what `read` fetches
 */
export async function withNextPlace<T>(
  repository: Repository,
  { path, signal }: { readonly path: string; readonly signal?: AbortSignal | undefined },
  read: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      return await read();
    } catch (error) {
      // What passes by itself is tried again by others.
      if (isPassing(toShimError(error)) || signal?.aborted || !repository.doubt(path)) throw error;
    }
  }
}
