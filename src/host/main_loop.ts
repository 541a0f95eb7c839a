import { stat } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import { setImmediate as nextTurn } from "node:timers/promises";

/** How long the main loop may be kept at work before sockets are looked at again, milliseconds: while nobody else is served… */
const ALONE_MS = 50;
/** …and where others are. */
const LONGEST_MS = 4;
/**
 * Of small steps that are asked for in one breath, so many are taken between two looks: what they are going to take has not
 * been taken yet.
 */
const MOST_STEPS = 256;
/** What keeps the loop for a millisecond, in small steps. */
export const MILLISECOND_OF_STEPS = 64;

export type MainLoopOptions = {
  readonly nowMs?: () => number;
  /** Resolves when all that was waiting at the kernel has been served. */
  readonly look?: () => Promise<void>;
};

/**
 * Shares the main loop between many operations that each keep it for a moment. What follows from a promise is done before
 * anything that waits at the kernel; so with hundreds at work nobody else would be served for a second.
 */
export class MainLoop {
  #longestMs = ALONE_MS;
  readonly #nowMs: () => number;
  #look: () => Promise<void>;
  #lookedMs = -Infinity;
  #steps = 0;
  #looking: Promise<void> | undefined;

  constructor({ nowMs = () => performance.now(), look = askKernel }: MainLoopOptions = {}) {
    this.#nowMs = nowMs;
    this.#look = look;
  }

  /**
   * From now on others wait for answers, too, and not only whoever ran this program.
   *
   * @param look a better one than a file's status, where there is one
   */
  serveOthers(look = this.#look): void {
    this.#look = look;
    this.#longestMs = LONGEST_MS;
  }

  /**
   * Resolves when the loop has not been kept for too long: to be called before what takes a while.
   *
   * @param steps as how many small ones it counts
   */
  async share(steps = 1): Promise<void> {
    while (this.#isToLook()) {
      await (this.#looking ??= this.#lookAgain());
    }
    this.#steps += steps;
  }

  #isToLook(): boolean {
    const most = MOST_STEPS * this.#longestMs / LONGEST_MS;
    return this.#steps >= most || this.#nowMs() - this.#lookedMs >= this.#longestMs;
  }

  async #lookAgain(): Promise<void> {
    try {
      await this.#look();
      this.#lookedMs = this.#nowMs();
      this.#steps = 0;
    } finally {
      this.#looking = undefined;
    }
  }
}

/**
 * Under Deno a chain of `setImmediate` is served before any socket, for as long as it goes on: the runtime asks the kernel
 * only when it has nothing else to do. So once all else is done it is given a moment in which there is nothing; often
 * enough for who serves nobody, but the answer may be there before the moment (`kernel_look.ts`).
 */
async function askKernel(): Promise<void> {
  await nextTurn();
  await stat("/");
}

/** The process's own: there is one. */
export const mainLoop = new MainLoop();
