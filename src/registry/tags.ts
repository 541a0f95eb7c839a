import { z } from "zod";
import { ShimError } from "../errors.ts";
import type { FetchOptions } from "../image/image_source.ts";
import { isTag } from "./endpoint.ts";
import { readPages } from "./listing.ts";
import type { Repository } from "./repository.ts";

const MAX_TAGS = 100_000;
/** Registries give fewer, or all, as they like. */
const PAGE_TAGS = 1000;

/** A repository without tags has `null` in some registries. */
const tagList = z.object({ tags: z.array(z.string().refine(isTag)).nullish() });

/**
 * The tags of a repository, each once, in lexical order whatever the registry's.
 *
 * @throws {ShimError} REGISTRY_PROTOCOL when it is no list of tags; LIMIT_EXCEEDED over 100,000; what
 *   {@link readPages} throws
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags
 */
export async function listTags(
  repository: Repository,
  { signal }: FetchOptions = {},
): Promise<readonly string[]> {
  const action = `list the tags of "${repository.endpoint.name}"`;
  const request = { path: "tags/list", query: `?n=${PAGE_TAGS}`, accept: "application/json", action, signal };
  const tags = new Set<string>();
  for await (const { value } of readPages(repository, request)) {
    const page = tagList.safeParse(value);
    if (!page.success) {
      throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the answer is not a list of tags`);
    }
    for (const tag of page.data.tags ?? []) tags.add(tag);
    if (tags.size > MAX_TAGS) {
      throw new ShimError("LIMIT_EXCEEDED", `Cannot ${action}: there are over ${MAX_TAGS}`);
    }
  }
  return [...tags].sort();
}
