/** Something that happened here, as `GET /v1/events` tells it. */
export type LoggedEvent = {
  /** Grows with each event, also from one life of the service to the next; a reader names the last it saw. */
  readonly id: number;
  readonly type: string;
  /** RFC 3339, UTC. */
  readonly at: string;
  readonly data: Readonly<Record<string, unknown>>;
};

type Reader = {
  readonly wants: (event: LoggedEvent) => boolean;
  readonly queue: Queued[];
  hasLost: boolean;
  wake: () => void;
};

type Queued = LoggedEvent & {
  /** Of what passes: a later one of the same name takes its place while nobody has read it. */
  readonly passing?: string | undefined;
};

export type ReadOptions = {
  /** The last event the reader has seen, 0 for all that is kept; undefined: only what is to come. */
  readonly afterId?: number | undefined;
  readonly wants?: (event: LoggedEvent) => boolean;
  readonly signal: AbortSignal;
};

/** Given in place of events that a reader can no longer have: it has to look at the state anew. */
export const RESYNC = "resync";

/** How many events are kept for readers that come back, and how many one slow reader may have waiting. */
const KEPT_EVENTS = 1000;
/** More events than come in a millisecond: the numbers of a life end before those of the next begin. */
const IDS_PER_MS = 1000;

/**
 * What happened, for any number of readers, each at its own pace. Nobody is waited for: a reader that is too slow loses
 * the oldest, and is told so.
 */
export class EventLog {
  readonly #kept: LoggedEvent[] = [];
  readonly #readers = new Set<Reader>();
  readonly #startId: number;
  #lastId: number;
  /** Of the last event that a reader can no longer have: those of other lives, then those that made room. */
  #forgottenId: number;

  /** @param startMs when this life of the service began, so that its numbers are above those of any before */
  constructor(startMs: number = Date.now()) {
    this.#startId = startMs * IDS_PER_MS;
    this.#lastId = this.#startId;
    this.#forgottenId = this.#startId;
  }

  /** Of the last event that was published. */
  get lastId(): number {
    return this.#lastId;
  }

  publish(type: string, data: Readonly<Record<string, unknown>>): void {
    const event = this.#next(type, data);
    this.#kept.push(event);
    if (this.#kept.length > KEPT_EVENTS) this.#forgottenId = this.#kept.shift()?.id ?? this.#forgottenId;
    for (const reader of this.#readers) give(reader, event);
  }

  /**
   * Tells those who read now, and keeps nothing: the state says it to whoever comes later.
   *
   * @param name of what it is about; a slow reader is given the newest of a name only
   */
  pass(type: string, name: string, data: Readonly<Record<string, unknown>>): void {
    const event = { ...this.#next(type, data), passing: name };
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

  /** How many read now. */
  get readers(): number {
    return this.#readers.size;
  }

  #next(type: string, data: Readonly<Record<string, unknown>>): LoggedEvent {
    this.#lastId += 1;
    return { id: this.#lastId, type, at: new Date().toISOString(), data };
  }

  #replay(reader: Reader, afterId: number | undefined): void {
    if (afterId === undefined) return;
    // Who names none has seen nothing, and wants this life from its beginning.
    const seenId = afterId === 0 ? this.#startId : afterId;
    // A number from another life of the service, or one that is forgotten: nobody can tell what was missed.
    reader.hasLost = seenId < this.#forgottenId || seenId > this.#lastId;
    for (const event of this.#kept) if (event.id > seenId) give(reader, event);
  }
}

function give(reader: Reader, event: Queued): void {
  if (!reader.wants(event)) return;
  const { queue } = reader;
  const isNewer = event.passing !== undefined && queue.at(-1)?.passing === event.passing;
  if (isNewer) queue.pop();
  queue.push(event);
  if (queue.length > KEPT_EVENTS) {
    queue.splice(0, queue.length);
    reader.hasLost = true;
  }
  reader.wake();
}
