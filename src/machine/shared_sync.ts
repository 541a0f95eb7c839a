/**
 * One sync for all who ask for it at about the same time. Each is served by one that began after it asked, so what it did
 * before is in it; and whoever asks while one is under way is told its failure, too, because that one may have been about
 * the same blocks, and the kernel tells a failure once.
 */
export class SharedSync {
  readonly #sync: () => Promise<unknown>;
  #running: Promise<unknown> | undefined;
  #next: Promise<unknown> | undefined;

  constructor(sync: () => Promise<unknown>) {
    this.#sync = sync;
  }

  /** Rejects with what the sync rejects with. */
  async run(): Promise<void> {
    if (!this.#running) await this.#begin();
    else await (this.#next ??= this.#after(this.#running));
  }

  async #after(running: Promise<unknown>): Promise<void> {
    try {
      await running;
    } finally {
      this.#next = undefined;
    }
    await this.#begin();
  }

  async #begin(): Promise<void> {
    const running = this.#sync();
    this.#running = running;
    try {
      await running;
    } finally {
      if (this.#running === running) this.#running = undefined;
    }
  }
}
