import { setTimeout as wait } from "node:timers/promises";
import { type ErrorCode, ShimError, toShimError } from "../errors.ts";
import type { FetchOptions } from "../image/image_source.ts";
import type { RegistryLimits } from "./limits.ts";
import { isRefusedRedirect } from "./response_error.ts";

/** The failures that pass by themselves in moments. */
const PASSING: ReadonlySet<ErrorCode> = new Set([
  "REGISTRY_UNAVAILABLE",
  "REGISTRY_TIMEOUT",
  "REGISTRY_RATE_LIMITED",
]);

export function isPassing(failure: ShimError): boolean {
  return PASSING.has(failure.code);
}

/**
 * How often one operation may ask again, and when. Nothing else in this folder tries twice, so that waits never multiply.
 */
export class Attempts {
  readonly #limits: RegistryLimits;
  readonly #options: FetchOptions;
  #total = 0;
  #withoutProgress = 0;

  constructor(limits: RegistryLimits, options: FetchOptions = {}) {
    this.#limits = limits;
    this.#options = options;
  }

  /**
   * Resolves when it is time for the next attempt: after a pause of ours, or the longer one that the server asked for.
   *
   * @param progressed whether the failed attempt brought bytes that no other had brought
   * @throws {ShimError} the failure itself when no attempt is left, or time has run out; CANCELLED
   */
  async next(failure: ShimError, progressed: boolean): Promise<void> {
    this.#total += 1;
    this.#withoutProgress = progressed ? 1 : this.#withoutProgress + 1;
    const { attemptsWithoutProgress, attemptsPerBlob, backoffMs } = this.#limits;
    if (this.#withoutProgress >= attemptsWithoutProgress || this.#total >= attemptsPerBlob) throw failure;
    const { signal, onWait } = this.#options;
    const ownMs = backoffMs * 2 ** (this.#withoutProgress - 1) * (0.5 + Math.random() / 2);
    const delayMs = Math.max(ownMs, Number(failure.details["retryAfterMs"] ?? 0));
    onWait?.({ code: failure.code, delayMs });
    try {
      await wait(delayMs, undefined, signal ? { signal } : {});
    } catch (error) {
      // Why it takes so long says more than that it took too long.
      if (signal?.reason instanceof ShimError && signal.reason.code === "REGISTRY_TIMEOUT") throw failure;
      throw new ShimError("CANCELLED", "Cannot try again: the operation was cancelled", { cause: error });
    }
  }
}

/** Runs `operation` until it succeeds, fails for good, or no attempt is left. It must be safe to run again. */
export async function withAttempts<T>(attempts: Attempts, operation: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await operation();
    } catch (error) {
      const failure = toShimError(error);
      if (!isPassing(failure)) throw failure;
      await attempts.next(failure, false);
    }
  }
}

/**
 * Runs `open`, which begins at the registry, and once more when where it was redirected to refuses: the signature of the
 * one redirect may have been cached, or over, that of the next need not be. A second refusal is the answer.
 */
export async function withFreshRedirect<T>(open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (!isRefusedRedirect(toShimError(error))) throw error;
    return await open();
  }
}
