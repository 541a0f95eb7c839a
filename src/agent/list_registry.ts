import type { RegistryReference } from "../image/reference.ts";
import type { Referrer } from "../registry/referrers.ts";
import type { AgentContext } from "./agent_context.ts";
import { withRegistry } from "./open_source.ts";

export type { Referrer };

/** What a repository has under names, straight from its registry. @throws {ShimError} REGISTRY_*, LIMIT_EXCEEDED */
export async function listTags(
  context: AgentContext,
  reference: Pick<RegistryReference, "host" | "repository">,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<readonly string[]> {
  return await withRegistry(context, reference, async (client) => await client.listTags(options));
}

/** What refers to an image: signatures, bills of materials. @throws {ShimError} REGISTRY_*, LIMIT_EXCEEDED */
export async function listReferrers(
  context: AgentContext,
  reference: RegistryReference,
  { artifactType, signal }: {
    readonly artifactType?: string | undefined;
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<readonly Referrer[]> {
  return await withRegistry(context, reference, async (client) => {
    const digest = reference.digest ??
      (await client.resolve(reference.tag, { signal })).descriptor.digest;
    return await client.listReferrers(digest, { signal, ...(artifactType ? { artifactType } : {}) });
  });
}
