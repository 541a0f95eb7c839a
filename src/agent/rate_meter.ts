/** A rate is told over so long, at most: long enough not to jump about, short enough to follow the network. */
const WINDOW_MS = 5_000;
/** Samples closer together than this replace each other. */
const STEP_MS = 250;
/** Over less time nothing is told. */
const LEAST_MS = 500;

type Sample = { readonly atMs: number; readonly doneBytes: number };

/** How fast something grows, on a clock that never jumps. */
export class RateMeter {
  readonly #now: () => number;
  readonly #samples: Sample[] = [];
  #last: Sample | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  note(doneBytes: number): void {
    const atMs = this.#now();
    this.#last = { atMs, doneBytes };
    const before = this.#samples.at(-1);
    if (before !== undefined && doneBytes < before.doneBytes) this.#samples.length = 0;
    if (before === undefined || atMs - before.atMs >= STEP_MS) this.#samples.push(this.#last);
    while ((this.#samples[1]?.atMs ?? Infinity) <= atMs - WINDOW_MS) this.#samples.shift();
  }

  /** @param leftBytes what has still to come */
  pace(leftBytes: number): { readonly bytesPerSecond?: number; readonly remainingSeconds?: number } {
    const first = this.#samples[0];
    if (first === undefined || this.#last === undefined) return {};
    const elapsedMs = this.#now() - first.atMs;
    if (elapsedMs < LEAST_MS) return {};
    const bytesPerSecond = Math.round((this.#last.doneBytes - first.doneBytes) / elapsedMs * 1000);
    if (leftBytes === 0) return { bytesPerSecond, remainingSeconds: 0 };
    return bytesPerSecond <= 0
      ? { bytesPerSecond: 0 }
      : { bytesPerSecond, remainingSeconds: Math.ceil(leftBytes / bytesPerSecond) };
  }
}
