/** Windows are long enough to tell rates apart, and short enough that a second decides. */
const WINDOW_MS = 200;
const BYTES_PER_LANE = 1024 * 1024;
/** Share of the time that the reader must have waited for the network before more connections can help. */
const STARVED = 0.3;
/** Of what so many more connections could bring at best, the share that makes them worth their load on the server. */
const WORTH = 0.25;
/** After more connections turned out not to help: how long until that is doubted, doubled each time. */
const SETTLED_MS = 1_000;
const LONGEST_SETTLED_MS = 60_000;

/**
 * How many connections one blob is fetched over: chosen by measuring. Begins with one; doubles them while the reader
 * waits for the network and it pays; goes back when it does not, and to one when something breaks.
 */
export class LaneCount {
  #lanes = 1;
  readonly #most: number;
  readonly #now: () => number;
  #startedMs: number;
  #receivedBytes = 0;
  #waitedMs = 0;
  /** Bytes per millisecond in the last complete window. */
  #rate = 0;
  /** What it was before the connections were doubled. */
  #before: { readonly lanes: number; readonly rate: number } | undefined;
  /** New connections take their time to begin. */
  #isWarmingUp = false;
  #settledUntilMs = -Infinity;
  #settleMs = SETTLED_MS;

  /** @param now milliseconds on a clock that never jumps */
  constructor(most: number, now: () => number = () => performance.now()) {
    this.#most = most;
    this.#now = now;
    this.#startedMs = now();
  }

  get lanes(): number {
    return this.#lanes;
  }

  /**
   * How much to ask one connection for at once: what it brings until it is worth thinking again. Each request costs, a
   * server more than us: `docker-registry` reads 4 MiB for each. In the first window at most as much as came in it, since
   * that may be what a server had ready.
   */
  get worthwhileBytes(): number {
    const now = this.#now();
    if (this.#rate > 0) return Math.floor(this.#rate * Math.max(WINDOW_MS, this.#settledUntilMs - now));
    const elapsedMs = now - this.#startedMs;
    const leftMs = WINDOW_MS - elapsedMs;
    if (elapsedMs <= 0 || leftMs <= 0) return 0;
    return Math.floor(this.#receivedBytes * Math.min(1, leftMs / elapsedMs));
  }

  /** Bytes came in from the network, on whichever connection. */
  received(bytes: number): void {
    this.#receivedBytes += bytes;
    const isWarm = this.#isWarmingUp && this.#receivedBytes >= this.#lanes * BYTES_PER_LANE;
    if (!isWarm) return;
    this.#isWarmingUp = false;
    this.#beginWindow();
  }

  /** The reader waited so long for the next byte in order. */
  waited(forMs: number): void {
    this.#waitedMs += forMs;
  }

  /** Thinks again; to be called whenever the number of connections may change. */
  decide(): void {
    const elapsedMs = this.#now() - this.#startedMs;
    const isComplete = elapsedMs >= WINDOW_MS && this.#receivedBytes >= this.#lanes * BYTES_PER_LANE;
    if (this.#isWarmingUp || !isComplete) return;
    this.#rate = this.#receivedBytes / elapsedMs;
    const isStarved = this.#waitedMs / elapsedMs >= STARVED;
    if (
      this.#before !== undefined && this.#rate < this.#before.rate * growthAt(this.#before.lanes, this.#lanes)
    ) {
      this.#lanes = this.#before.lanes;
      this.#rate = this.#before.rate;
      this.#settledUntilMs = this.#now() + this.#settleMs;
      this.#settleMs = Math.min(this.#settleMs * 2, LONGEST_SETTLED_MS);
      this.#before = undefined;
    } else {
      this.#before = undefined;
      if (isStarved && this.#lanes < this.#most && this.#now() >= this.#settledUntilMs) {
        this.#before = { lanes: this.#lanes, rate: this.#rate };
        this.#lanes = Math.min(this.#lanes * 2, this.#most);
        this.#isWarmingUp = true;
      }
    }
    this.#beginWindow();
  }

  /** A connection broke, or was refused: go on with one, and find out anew. */
  failed(): void {
    this.#lanes = 1;
    this.#rate = 0;
    this.#before = undefined;
    this.#isWarmingUp = false;
    this.#beginWindow();
  }

  #beginWindow(): void {
    this.#startedMs = this.#now();
    this.#receivedBytes = 0;
    this.#waitedMs = 0;
  }
}

function growthAt(before: number, lanes: number): number {
  return 1 + (lanes / before - 1) * WORTH;
}
