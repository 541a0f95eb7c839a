/** How long a mirror that failed is left alone. */
const REST_MS = 60_000;
/** How long a mirror is not asked again for what it has not, or has wrong. */
const DOUBT_MS = 600_000;
/** Of what is remembered; the oldest is forgotten first. */
const MAX_ENTRIES = 10_000;

/** What this process learnt about mirrors: which are down, and what they do not have. Kept in memory, on a steady clock. */
export class PlaceMemory {
  readonly #untilMs = new Map<string, number>();
  readonly #served = new Map<string, Set<string>>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** @param path a repository's content, as in `os/demo/blobs/sha256:…` */
  isAsked(place: string, path: string): boolean {
    return !this.#isKept(place) && !this.#isKept(`${place} ${path}`);
  }

  /** It cannot be reached, or fails: nothing is asked of it for a while. */
  rest(place: string): void {
    this.#keep(place, REST_MS);
  }

  /** It has not got this, or has it wrong. */
  doubt(place: string, path: string): void {
    this.#keep(`${place} ${path}`, DOUBT_MS);
  }

  /** @see doubtServers */
  served(place: string, path: string): void {
    const places = this.#served.get(path) ?? new Set();
    this.#served.delete(path);
    this.#served.set(path, places.add(place));
    forgetOldest(this.#served);
  }

  /** Doubts every mirror that served this. @returns whether there was one */
  doubtServers(path: string): boolean {
    const places = this.#served.get(path) ?? new Set();
    this.#served.delete(path);
    for (const place of places) this.doubt(place, path);
    return places.size > 0;
  }

  #isKept(key: string): boolean {
    return (this.#untilMs.get(key) ?? -Infinity) > this.#now();
  }

  #keep(key: string, forMs: number): void {
    this.#untilMs.delete(key);
    this.#untilMs.set(key, this.#now() + forMs);
    forgetOldest(this.#untilMs);
  }
}

function forgetOldest(map: Map<string, unknown>): void {
  const [oldest] = map.keys();
  if (map.size > MAX_ENTRIES && oldest !== undefined) map.delete(oldest);
}
