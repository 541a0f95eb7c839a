import { ShimError } from "../errors.ts";

/** A caller is told to come back when about this long has passed. */
const RETRY_AFTER_SECONDS = 2;

/** Memory that callers may have us hold for them, all together. */
export class ByteBudget {
  readonly #limitBytes: number;
  readonly #what: string;
  #heldBytes = 0;

  /** @param what is held, in the plural, as errors name it */
  constructor(limitBytes: number, what: string) {
    this.#limitBytes = limitBytes;
    this.#what = what;
  }

  /** @returns called once, when nothing of it is held any more. @throws {ShimError} BUSY */
  take(sizeBytes: number): () => void {
    if (this.#heldBytes + sizeBytes > this.#limitBytes) {
      throw new ShimError(
        "BUSY",
        `Cannot begin: ${this.#what} of ${this.#heldBytes} bytes are held already, limit is ${this.#limitBytes}`,
        { details: { retryAfterSeconds: RETRY_AFTER_SECONDS, remedy: "try again in a moment" } },
      );
    }
    this.#heldBytes += sizeBytes;
    return () => this.#heldBytes -= sizeBytes;
  }
}
