/** Something that happened here, as `GET /v1/events` tells it. */
export type LoggedEvent = {
  /** Grows by one with each event of this service's life; a reader names the last it saw. */
  readonly id: number;
  readonly type: string;
  /** RFC 3339, UTC. */
  readonly at: string;
  readonly data: Readonly<Record<string, unknown>>;
};

type Reader = {
  readonly wants: (event: LoggedEvent) => boolean;
  readonly queue: LoggedEvent[];
  hasLost: boolean;
  wake: () => void;
};

export type ReadOptions = {
  /** The last event the reader has seen; undefined: only what is to come. */
  readonly afterId?: number | undefined;
  readonly wants?: (event: LoggedEvent) => boolean;
  readonly signal: AbortSignal;
};

/** Given in place of events that a reader can no longer have: it has to look at the state anew. */
export const RESYNC = "resync";

/** How many events are kept for readers that come back, and how many one slow reader may have waiting. */
const KEPT_EVENTS = 1000;

/**
 * What happened, for any number of readers, each at its own pace. Nobody is waited for: a reader that is too slow loses
 * the oldest, and is told so.
 */
export class EventLog {
  readonly #kept: LoggedEvent[] = [];
  readonly #readers = new Set<Reader>();
  #lastId = 0;

  /** Of the last event that was published; 0 before the first. */
  get lastId(): number {
    return this.#lastId;
  }

  publish(type: string, data: Readonly<Record<string, unknown>>): void {
    this.#lastId += 1;
    const event = { id: this.#lastId, type, at: new Date().toISOString(), data };
    this.#kept.push(event);
    if (this.#kept.length > KEPT_EVENTS) this.#kept.shift();
    for (const reader of this.#readers) give(reader, event);
  }

  /** Events as they come, until the signal fires. A `resync` event stands for those that were lost. */
  async *read({ afterId, wants = () => true, signal }: ReadOptions): AsyncGenerator<LoggedEvent> {
    const reader: Reader = { wants, queue: [], hasLost: false, wake: () => {} };
    this.#replay(reader, afterId);
    this.#readers.add(reader);
    const stop = () => reader.wake();
    signal.addEventListener("abort", stop, { once: true });
    try {
      while (!signal.aborted) {
        if (reader.hasLost) {
          reader.hasLost = false;
          yield { id: this.#lastId, type: RESYNC, at: new Date().toISOString(), data: {} };
        }
        const event = reader.queue.shift();
        if (event) yield event;
        else await new Promise<void>((resolve) => reader.wake = resolve);
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.#readers.delete(reader);
    }
  }

  #replay(reader: Reader, afterId: number | undefined): void {
    if (afterId === undefined) return;
    const first = this.#kept[0]?.id ?? this.#lastId + 1;
    // A number from another life of the service, or one that is forgotten: nobody can tell what was missed.
    reader.hasLost = afterId < first - 1 || afterId > this.#lastId;
    for (const event of this.#kept) if (event.id > afterId) give(reader, event);
  }
}

function give(reader: Reader, event: LoggedEvent): void {
  if (!reader.wants(event)) return;
  reader.queue.push(event);
  if (reader.queue.length > KEPT_EVENTS) {
    reader.queue.splice(0, reader.queue.length);
    reader.hasLost = true;
  }
  reader.wake();
}
