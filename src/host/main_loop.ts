import { performance } from "node:perf_hooks";

/** How long one turn of the main loop may be kept at work, milliseconds: others look at their sockets between two turns. */
const LONGEST_TURN_MS = 4;
/** Of those that ask in one breath, so many begin in one turn: what they are going to take has not been taken yet. */
const MOST_IN_A_TURN = 32;

/**
 * Shares the main loop between many operations that each keep it for a moment. Whatever waits for a socket or a timer is
 * served between two turns of the loop, but what follows from a promise is not put off to the next one; so with hundreds
 * at work one turn could last for a second.
 */
export class MainLoop {
  readonly #nowMs: () => number;
  #startedMs: number | undefined;
  #begun = 0;

  constructor({ nowMs = () => performance.now() }: { readonly nowMs?: () => number } = {}) {
    this.#nowMs = nowMs;
  }

  /** Resolves at once, or in a turn that has not lasted too long yet: to be called before what takes a while. */
  async share(): Promise<void> {
    for (;;) {
      const nowMs = this.#nowMs();
      if (this.#startedMs === undefined) {
        this.#startedMs = nowMs;
        this.#begun = 0;
        setImmediate(() => this.#startedMs = undefined);
      }
      if (nowMs - this.#startedMs < LONGEST_TURN_MS && this.#begun < MOST_IN_A_TURN) {
        this.#begun += 1;
        return;
      }
      await new Promise<void>((resolve) => void setImmediate(resolve));
    }
  }
}

/** The process's own: there is one. */
export const mainLoop = new MainLoop();
