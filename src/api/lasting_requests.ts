import { ShimError } from "../errors.ts";

/** A caller is told to come back when about this long has passed. */
const RETRY_AFTER_SECONDS = 2;

/**
 * Counts the requests that take as long as something outside of us does, and refuses more than its limit: they are not to
 * take the connections of those that are answered at once.
 */
export class LastingRequests {
  readonly #limit: number;
  #count = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @returns called once, when it was answered or its caller has gone. @throws {ShimError} BUSY */
  begin(): () => void {
    if (this.#count >= this.#limit) {
      throw new ShimError(
        "BUSY",
        `Cannot answer: ${this.#count} requests that take long are under way, limit is ${this.#limit}`,
        {
          details: {
            retryAfterSeconds: RETRY_AFTER_SECONDS,
            remedy: "try again in a moment; with Prefer: respond-async a prepare holds no connection",
          },
        },
      );
    }
    this.#count += 1;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#count -= 1;
    };
  }
}
