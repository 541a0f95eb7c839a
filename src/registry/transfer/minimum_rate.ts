import { ShimError } from "../../errors.ts";
import type { RegistryLimits } from "../limits.ts";

/** Ends a body with this in `details.limit`; what came before counts as progress only when it was much. */
export const RATE_LIMIT = "minimum-rate";

/**
 * Passes a body on, and ends it when it only trickles. Only the time spent waiting for the network counts: a reader may
 * take as long as it likes. Silence is another limit's business.
 *
 * @throws {ShimError} REGISTRY_TIMEOUT; what the body fails with
 */
export async function* requireRate(
  body: AsyncIterable<Uint8Array>,
  { limits: { rateWindowMs, rateWindowBytes }, action }: {
    readonly limits: RegistryLimits;
    readonly action: string;
  },
): AsyncGenerator<Uint8Array> {
  let waitedMs = 0;
  let receivedBytes = 0;
  let askedMs = performance.now();
  for await (const chunk of body) {
    waitedMs += performance.now() - askedMs;
    receivedBytes += chunk.length;
    if (receivedBytes >= rateWindowBytes) {
      waitedMs = 0;
      receivedBytes = 0;
    } else if (waitedMs >= rateWindowMs) {
      throw new ShimError(
        "REGISTRY_TIMEOUT",
        `Cannot ${action}: only ${receivedBytes} bytes came in ${Math.round(waitedMs / 1000)} s, ` +
          `expected at least ${rateWindowBytes}`,
        { details: { limit: RATE_LIMIT } },
      );
    }
    yield chunk;
    askedMs = performance.now();
  }
}
