import type { AgentContext } from "./agent_context.ts";

/**
 * Runs an operation during which nothing that it looks for or brings into the cache is collected: from before the
 * first look until a durable record, of a name or a machine, says who needs it.
 *
 * @param body gets the context with the content store under the lease
 * @throws {ShimError} LOCK_TIMEOUT, CANCELLED, NO_SPACE, BUSY, IO_ERROR; what `body` throws passes
 */
export async function withLease<T>(
  context: AgentContext,
  { signal }: { readonly signal?: AbortSignal | undefined },
  body: (context: AgentContext) => Promise<T>,
): Promise<T> {
  return await context.leases.withLease(
    (lease) => body({ ...context, content: context.content.underLease(lease) }),
    { signal },
  );
}
