import { ShimError, toShimError } from "../errors.ts";
import type { AgentContext } from "./agent_context.ts";
import type { OperationOptions } from "./progress.ts";

/**
 * Runs what asks registries, and ends it when all of it together takes too long. What had come by then stays for the
 * next call.
 *
 * @param body with a signal that ends with the time, too
 * @throws {ShimError} REGISTRY_TIMEOUT; what `body` throws for another reason
 */
export async function withDeadline<T, O extends OperationOptions>(
  { registries: { deadlineMs } }: Pick<AgentContext, "registries">,
  options: O,
  body: (options: O) => Promise<T>,
): Promise<T> {
  const late = new ShimError(
    "REGISTRY_TIMEOUT",
    `Cannot finish: it took longer than ${Math.round(deadlineMs / 1000)} s`,
    { details: { limit: "deadline", remedy: "try again: it goes on where it stopped" } },
  );
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(late), deadlineMs);
  const signal = options.signal ? AbortSignal.any([options.signal, deadline.signal]) : deadline.signal;
  try {
    return await body({ ...options, signal });
  } catch (error) {
    const isLate = deadline.signal.aborted && !options.signal?.aborted &&
      toShimError(error).code === "CANCELLED";
    throw isLate ? late : error;
  } finally {
    clearTimeout(timer);
  }
}
