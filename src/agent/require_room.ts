import type { AgentContext } from "./agent_context.ts";

/**
 * Makes sure that all that is missing of an image will fit, before its first byte is fetched.
 *
 * @throws {ShimError} NO_SPACE with both numbers; IO_ERROR
 */
export async function requireRoom(context: AgentContext, missingBytes: number): Promise<void> {
  await context.content.requireRoom(missingBytes);
}
