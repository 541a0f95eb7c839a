import { ShimError } from "../errors.ts";

export type TurnOptions = {
  readonly signal?: AbortSignal | undefined;
  /** On whose behalf: whoever asks for much waits in a row of its own. */
  readonly row?: string;
};

export type TurnsOptions = {
  /** How many of one row work at once, so that one whose work hangs does not take every place; default: all. */
  readonly perRow?: number;
};

/**
 * Lets a bounded number of callers work at once. The others wait: within a row first come first served, and one of each
 * row in turn, so that nobody who asks once stands behind all that another asked for.
 */
export class Turns {
  #free: number;
  readonly #perRow: number;
  /** By row, how many of it work. */
  readonly #working = new Map<string, number>();
  /** By row, the one whose turn is next first. */
  readonly #rows = new Map<string, (() => void)[]>();

  constructor(limit: number, { perRow = limit }: TurnsOptions = {}) {
    this.#free = limit;
    this.#perRow = perRow;
  }

  /** @throws {ShimError} CANCELLED when `signal` fires while waiting; what `body` throws passes */
  async take<T>(body: () => Promise<T>, options: TurnOptions = {}): Promise<T> {
    const giveBack = await this.acquire(options);
    try {
      return await body();
    } finally {
      giveBack();
    }
  }

  /**
   * Waits for a turn, for work that does not end where it began.
   *
   * @returns hands the turn on; called once
   * @throws {ShimError} CANCELLED when `signal` fires while waiting
   */
  async acquire({ signal, row = "" }: TurnOptions = {}): Promise<() => void> {
    if (this.#isFree(row)) this.#begin(row);
    else await this.#wait(row, signal);
    return () => {
      this.#end(row);
      this.#handOn();
    };
  }

  #isFree(row: string): boolean {
    return this.#free > 0 && (this.#working.get(row) ?? 0) < this.#perRow;
  }

  #begin(row: string): void {
    this.#free--;
    this.#working.set(row, (this.#working.get(row) ?? 0) + 1);
  }

  #end(row: string): void {
    this.#free++;
    const left = (this.#working.get(row) ?? 1) - 1;
    if (left > 0) this.#working.set(row, left);
    else this.#working.delete(row);
  }

  /** At once, so that nobody can come in between. */
  #handOn(): void {
    for (const [row, waiting] of this.#rows) {
      if (this.#free === 0) return;
      if (waiting.length > 0 && !this.#isFree(row)) continue;
      const next = waiting.shift();
      this.#rows.delete(row);
      // Behind the other rows.
      if (waiting.length > 0) this.#rows.set(row, waiting);
      if (!next) continue;
      this.#begin(row);
      next();
      return;
    }
  }

  async #wait(row: string, signal: AbortSignal | undefined): Promise<void> {
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
