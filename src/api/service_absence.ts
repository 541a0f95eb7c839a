import { setTimeout as wait } from "node:timers/promises";
import { ShimError, toShimError } from "../errors.ts";

/** Nobody answers where the service should be, or an answer broke off: a service that restarts is back in a moment. */
export class ServiceAway extends ShimError {
  override get retryable(): boolean {
    return true;
  }
}

const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 2_000;
/** A request that ends its service each time is not sent for ever. */
const MAX_WAITS = 200;

export type AbsenceOptions = {
  /** How long the service may be away at a time. */
  readonly patienceMs: number;
  /** Whether the whole request may be sent again: then a service that knows nothing of it any more is no failure. */
  readonly isRepeated: boolean;
  readonly signal: AbortSignal | undefined;
};

/** How long one call has been waiting for a service that is away. */
export class ServiceAbsence {
  readonly #options: AbsenceOptions;
  #sinceMs = 0;
  #lastMs = -Infinity;
  /** Since it was last there. */
  #waits = 0;
  #allWaits = 0;

  constructor(options: AbsenceOptions) {
    this.#options = options;
  }

  /** It is there; what failed was something else. */
  interrupt(): void {
    this.#lastMs = -Infinity;
  }

  /**
   * Resolves when it is time to try again, a little later each time.
   *
   * @throws what failed, when that is no absence or it has lasted for too long; CANCELLED
   */
  async outlast(thrown: unknown): Promise<void> {
    const { patienceMs, signal } = this.#options;
    if (signal?.aborted || !this.#isAbsence(toShimError(thrown))) throw thrown;
    const nowMs = performance.now();
    // It was there for long in between: this is another restart.
    if (nowMs - this.#lastMs > patienceMs) {
      this.#sinceMs = nowMs;
      this.#waits = 0;
    }
    this.#lastMs = nowMs;
    const leftMs = this.#sinceMs + patienceMs - nowMs;
    if (leftMs <= 0 || this.#allWaits >= MAX_WAITS) throw thrown;
    const fullMs = Math.min(FIRST_WAIT_MS * 2 ** this.#waits, LONGEST_WAIT_MS);
    this.#waits += 1;
    this.#allWaits += 1;
    // Many clients lose the service at the same moment.
    const waitMs = Math.min(leftMs, fullMs * (0.5 + Math.random() / 2));
    await wait(waitMs, undefined, signal ? { signal } : {}).catch((error: unknown) => {
      throw cancelled(signal, error);
    });
  }

  #isAbsence(error: ShimError): boolean {
    if (error instanceof ServiceAway) return true;
    return this.#options.isRepeated &&
      (error.code === "OPERATION_NOT_FOUND" || error.details["isServiceEnding"] === true);
  }
}

/** What a call ends with that was given up. */
export function cancelled(signal: AbortSignal | undefined, cause: unknown): ShimError {
  return signal?.reason instanceof ShimError
    ? signal.reason
    : new ShimError("CANCELLED", "Cannot finish the request: cancelled", { cause });
}
