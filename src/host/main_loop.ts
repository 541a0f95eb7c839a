import { stat } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import { setImmediate as nextTurn } from "node:timers/promises";

/** How long the main loop may be kept at work before sockets are looked at again, milliseconds. */
const LONGEST_MS = 4;
/** Of those that ask in one breath, so many begin between two looks: what they are going to take has not been taken yet. */
const MOST_AT_ONCE = 32;

export type MainLoopOptions = {
  readonly nowMs?: () => number;
  /** Resolves when all that was waiting at the kernel has been served. */
  readonly look?: () => Promise<void>;
  readonly most?: number;
};

/**
 * Shares the main loop between many operations that each keep it for a moment. What follows from a promise is done before
 * anything that waits at the kernel; so with hundreds at work nobody else would be served for a second.
 */
export class MainLoop {
  readonly #nowMs: () => number;
  readonly #look: () => Promise<void>;
  readonly #most: number;
  #lookedMs = -Infinity;
  #begun = 0;
  #looking: Promise<void> | undefined;

  constructor(
    { nowMs = () => performance.now(), look = askKernel, most = MOST_AT_ONCE }: MainLoopOptions = {},
  ) {
    this.#nowMs = nowMs;
    this.#look = look;
    this.#most = most;
  }

  /** Resolves when the loop has not been kept for too long: to be called before what takes a while. */
  async share(): Promise<void> {
    while (this.#begun >= this.#most || this.#nowMs() - this.#lookedMs >= LONGEST_MS) {
      await (this.#looking ??= this.#lookAgain());
    }
    this.#begun += 1;
  }

  async #lookAgain(): Promise<void> {
    try {
      await this.#look();
      this.#lookedMs = this.#nowMs();
      this.#begun = 0;
    } finally {
      this.#looking = undefined;
    }
  }
}

/**
 * Under Deno a chain of `setImmediate` is served before any socket, for as long as it goes on: the runtime asks the kernel
 * only when it has nothing else to do. So once all else is done it is given a moment in which there is nothing.
 */
async function askKernel(): Promise<void> {
  await nextTurn();
  await stat("/");
}

/** The process's own: there is one. */
export const mainLoop = new MainLoop();
