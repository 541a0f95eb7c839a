/** Tells the newest of many values, at most once in a while, and always the last. */
export class Paced<T> {
  readonly #everyMs: number;
  readonly #tell: (value: T) => void;
  #untold: { readonly value: T } | undefined;
  #toldMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(everyMs: number, tell: (value: T) => void) {
    this.#everyMs = everyMs;
    this.#tell = tell;
  }

  offer(value: T): void {
    this.#untold = { value };
    const waitMs = this.#toldMs + this.#everyMs - performance.now();
    if (waitMs <= 0) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), waitMs);
  }

  /** Tells now what was not told yet: something else comes next. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const untold = this.#untold;
    this.#untold = undefined;
    if (!untold) return;
    this.#toldMs = performance.now();
    this.#tell(untold.value);
  }
}
