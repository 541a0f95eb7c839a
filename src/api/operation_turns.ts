import { Turns } from "../agent/turns.ts";
import { ShimError } from "../errors.ts";

/** `source`: asks a registry, which may hang. `host`: needs this host only. */
export type Where = "source" | "host";

export type OperationTurnsOptions = {
  /** Operations at work at once, of either kind. */
  readonly maxRunning: number;
  /** Operations of either kind that may wait besides; one more is refused. */
  readonly maxPending: number;
};

/** In which row an operation waits. */
export type Rows = Readonly<Record<Where, string>>;

/** One row has at most this part of the places at work: whatever hangs there, the others go on. */
const SHARE_OF_ROW = 1 / 4;
/** On this host: more would share the same main loop and disk, and each look at the sockets would wait for all of them. */
const HOST_AT_ONCE = 4;
/** A caller is told to come back when about this many others had their turn. */
const RETRY_AFTER_SECONDS = 2;

/**
 * Where operations wait and work. Those that ask a registry and those that need this host only have places of their own,
 * so that a registry that hangs keeps no cached image waiting; an operation goes from one kind to the other as its work
 * does.
 */
export class OperationTurns {
  readonly #turns: Readonly<Record<Where, Turns>>;
  readonly #admitted = { source: 0, host: 0 };
  readonly #maxAdmitted: number;

  constructor({ maxRunning, maxPending }: OperationTurnsOptions) {
    const turns = (places: number) =>
      new Turns(places, { perRow: Math.max(1, Math.floor(places * SHARE_OF_ROW)) });
    this.#turns = { source: turns(maxRunning), host: turns(Math.min(maxRunning, HOST_AT_ONCE)) };
    this.#maxAdmitted = maxRunning + maxPending;
  }

  /** @throws {ShimError} BUSY when too many are there already */
  admit(where: Where, rows: Rows): OperationTurn {
    this.#enter(where);
    let current = where;
    let giveBack: (() => void) | undefined;
    const give = () => {
      giveBack?.();
      giveBack = undefined;
    };
    return {
      get isWaiting() {
        return giveBack === undefined;
      },
      wait: async (next, signal) => {
        if (next === current && giveBack) return;
        if (next !== current) {
          // Who was let in ends here, however many there are.
          if (next === "source") this.#enter(next);
          else this.#admitted[next] += 1;
          this.#admitted[current] -= 1;
          current = next;
        }
        give();
        giveBack = await this.#turns[next].acquire({ signal, row: rows[next] });
        // Given while it was cancelled: then it is handed on at the end.
        signal.throwIfAborted();
      },
      end: () => {
        give();
        this.#admitted[current] -= 1;
      },
    };
  }

  #enter(where: Where): void {
    const count = this.#admitted[where];
    if (count < this.#maxAdmitted) {
      this.#admitted[where] += 1;
      return;
    }
    throw new ShimError(
      "BUSY",
      `Cannot begin: ${count} operations are under way already, limit is ${this.#maxAdmitted}`,
      { details: { retryAfterSeconds: RETRY_AFTER_SECONDS, remedy: "try again in a moment" } },
    );
  }
}

/** The place of one operation. */
export type OperationTurn = {
  /** It works nowhere now. */
  readonly isWaiting: boolean;
  /**
   * Waits for its turn there, having given up the one it had elsewhere.
   *
   * @throws {ShimError} BUSY when too many want to be there; CANCELLED
   */
  readonly wait: (where: Where, signal: AbortSignal) => Promise<void>;
  /** Called once, when it is over. */
  readonly end: () => void;
};
