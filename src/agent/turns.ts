import { ShimError } from "../errors.ts";

export type TurnOptions = {
  readonly signal?: AbortSignal | undefined;
  /** On whose behalf: whoever asks for much waits in a row of its own. */
  readonly row?: string;
};

/**
 * Lets a bounded number of callers work at once. The others wait: within a row first come first served, and one of each
 * row in turn, so that nobody who asks once stands behind all that another asked for.
 */
export class Turns {
  #free: number;
  /** By row, the one whose turn is next first. */
  readonly #rows = new Map<string, (() => void)[]>();

  constructor(limit: number) {
    this.#free = limit;
  }

  /** @throws {ShimError} CANCELLED when `signal` fires while waiting; what `body` throws passes */
  async take<T>(body: () => Promise<T>, { signal, row = "" }: TurnOptions = {}): Promise<T> {
    await this.#wait(row, signal);
    try {
      return await body();
    } finally {
      const next = this.#nextInTurn();
      // The turn is handed on, so that nobody can come in between.
      if (next) next();
      else this.#free++;
    }
  }

  #nextInTurn(): (() => void) | undefined {
    for (const [row, waiting] of this.#rows) {
      const next = waiting.shift();
      this.#rows.delete(row);
      // Behind the other rows.
      if (waiting.length > 0) this.#rows.set(row, waiting);
      if (next) return next;
    }
    return undefined;
  }

  async #wait(row: string, signal: AbortSignal | undefined): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const turn = Promise.withResolvers<void>();
    const begin = () => turn.resolve();
    const leave = () => {
      const waiting = this.#rows.get(row) ?? [];
      const place = waiting.indexOf(begin);
      // Given the turn already: then it is taken, and handed on by the body's own look at the signal.
      if (place === -1) return;
      waiting.splice(place, 1);
      turn.reject(
        new ShimError("CANCELLED", "Cannot wait for a turn: cancelled", { cause: signal?.reason }),
      );
    };
    const waiting = this.#rows.get(row);
    if (waiting) waiting.push(begin);
    else this.#rows.set(row, [begin]);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted) leave();
    try {
      await turn.promise;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }
}
