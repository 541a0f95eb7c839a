import { ShimError } from "../errors.ts";

/** Lets a bounded number of callers work at once; the others wait, first come first served. */
export class Turns {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** @throws {ShimError} CANCELLED when `signal` fires while waiting; what `body` throws passes */
  async take<T>(body: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#wait(signal);
    try {
      return await body();
    } finally {
      const next = this.#waiting.shift();
      // The turn is handed on, so that nobody can come in between.
      if (next) next();
      else this.#free++;
    }
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const turn = Promise.withResolvers<void>();
    const begin = () => turn.resolve();
    const leave = () => {
      const place = this.#waiting.indexOf(begin);
      // Given the turn already: then it is taken, and handed on by the body's own look at the signal.
      if (place === -1) return;
      this.#waiting.splice(place, 1);
      turn.reject(
        new ShimError("CANCELLED", "Cannot wait for a turn: cancelled", { cause: signal?.reason }),
      );
    };
    this.#waiting.push(begin);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted) leave();
    try {
      await turn.promise;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }
}
