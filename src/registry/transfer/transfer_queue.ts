import { translateTransportError } from "../transport_error.ts";

type Waiting = { readonly owner: object; readonly enter: () => void };

/**
 * How many blobs are transferred at once in this process. Whose turn it is goes by owner, one for each image that is
 * pulled: an image of forty layers does not keep one of a single layer waiting.
 */
export class TransferQueue {
  readonly #most: number;
  readonly #running = new Map<object, number>();
  readonly #waiting: Waiting[] = [];
  #total = 0;

  /** @param most transfers at once, at least 1 */
  constructor(most: number) {
    this.#most = most;
  }

  /**
   * Resolves when it is the caller's turn.
   *
   * @returns to be called when the transfer has ended; calling it again does nothing
   * @throws {ShimError} CANCELLED
   */
  async enter(
    owner: object,
    { action, signal }: { readonly action: string; readonly signal?: AbortSignal | undefined },
  ): Promise<() => void> {
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(translateTransportError(signal?.reason, { action, signal }));
      };
      const entry: Waiting = {
        owner,
        enter: () => {
          signal?.removeEventListener("abort", leave);
          resolve();
        },
      };
      this.#waiting.push(entry);
      if (signal?.aborted) return leave();
      signal?.addEventListener("abort", leave, { once: true });
      this.#admit();
    });
    let isRunning = true;
    return () => {
      if (!isRunning) return;
      isRunning = false;
      this.#count(owner, -1);
      this.#admit();
    };
  }

  /** Of those who wait, the owner with the least running goes first; among equals, who came first. */
  #admit(): void {
    while (this.#total < this.#most && this.#waiting.length > 0) {
      const runningOf = ({ owner }: Waiting) => this.#running.get(owner) ?? 0;
      const next = this.#waiting.reduce((best, each) => runningOf(each) < runningOf(best) ? each : best);
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#count(next.owner, 1);
      next.enter();
    }
  }

  #count(owner: object, by: number): void {
    this.#total += by;
    const running = (this.#running.get(owner) ?? 0) + by;
    if (running === 0) this.#running.delete(owner);
    else this.#running.set(owner, running);
  }
}
