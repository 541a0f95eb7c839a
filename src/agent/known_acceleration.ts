import { whileWanted } from "../host/while_wanted.ts";
import type { Architecture } from "../image/platform.ts";
import type { AccelerationVerdict } from "../qemu/acceleration_probe.ts";

/** So soon nobody joins a group or installs another QEMU; hundreds of machines are made meanwhile. */
const KEEP_MS = 1000;

type Look = {
  readonly verdict: Promise<AccelerationVerdict>;
  /** Ends the look. */
  readonly giveUp: AbortController;
  waiting: number;
  /** Infinity until there is a verdict. */
  endMs: number;
};

/**
 * What was found a moment ago: to make sure anew asks the file system a dozen things for each machine, and to try KVM
 * takes seconds where it only pretends. Whoever asks meanwhile waits for the same look.
 */
export class KnownAcceleration {
  readonly #nowMs: () => number;
  readonly #looks = new Map<Architecture, Look>();

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  /**
   * The verdict of at most a second ago, else what `look` finds.
   *
   * @param look its signal fires when nobody waits any longer
   * @throws {ShimError} CANCELLED when `signal` fires; what `look` throws, which is not kept
   */
  async learn(
    architecture: Architecture,
    look: (signal: AbortSignal) => Promise<AccelerationVerdict>,
    signal?: AbortSignal,
  ): Promise<AccelerationVerdict> {
    const known = this.#looks.get(architecture);
    const current = known && this.#nowMs() < known.endMs ? known : this.#begin(architecture, look);
    current.waiting++;
    try {
      return await whileWanted(current.verdict, { action: "learn how guests run here", signal });
    } finally {
      current.waiting--;
      if (current.waiting === 0 && current.endMs === Infinity) {
        this.#end(architecture, current);
        // Whoever was the last may end the process next: what the look has started is gone by then.
        await current.verdict.catch(() => {});
      }
    }
  }

  #begin(architecture: Architecture, look: (signal: AbortSignal) => Promise<AccelerationVerdict>): Look {
    const giveUp = new AbortController();
    const begun: Look = { verdict: look(giveUp.signal), giveUp, waiting: 0, endMs: Infinity };
    this.#looks.set(architecture, begun);
    begun.verdict.then(
      () => begun.endMs = this.#nowMs() + KEEP_MS,
      () => this.#end(architecture, begun),
    );
    return begun;
  }

  /** Whoever comes next begins another. */
  #end(architecture: Architecture, look: Look): void {
    if (this.#looks.get(architecture) === look) this.#looks.delete(architecture);
    look.giveUp.abort();
  }
}
