import type { RegistryLimits } from "../limits.ts";
import type { BlobPart, ByteRange } from "./blob_part.ts";
import type { BlobResumption } from "./blob_resumption.ts";
import { LaneCount } from "./lane_count.ts";
import type { ReadAheadMember } from "./read_ahead.ts";
import { Segment } from "./segment.ts";

export type OrderedBlobOptions = {
  readonly resumption: BlobResumption;
  /** Asks for a part once. */
  readonly open: (range: ByteRange, signal: AbortSignal) => Promise<BlobPart>;
  readonly signal: AbortSignal;
  readonly sizeBytes: number;
  readonly limits: RegistryLimits;
  readonly ahead: ReadAheadMember;
};

/**
 * A large blob in order, over as many connections as are faster than fewer. The reader's own connection brings what is
 * next and nobody has; others bring segments that come after, into memory that all blobs share. Only the reader's own
 * connection is ever resumed: a segment that breaks costs itself at most, and then everything begins anew with one.
 */
export class OrderedBlob {
  readonly #options: OrderedBlobOptions;
  readonly #lanes: LaneCount;
  /** In order, without gaps between them. */
  #segments: Segment[] = [];
  /** How far the reader's own connection reads. */
  #ownEnd = 0;
  #running = 0;
  #hasRanges = true;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;

  constructor(options: OrderedBlobOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal]);
    this.#lanes = new LaneCount(options.limits.connectionsPerBlob);
  }

  /** @param first an already open answer to a request for the bytes to before `endByte` */
  async *chunks(first: BlobPart, endByte: number): AsyncGenerator<Uint8Array> {
    const { resumption, sizeBytes } = this.#options;
    try {
      this.#hasRanges = first.endByte <= endByte;
      yield* this.#readOwn(endByte, first);
      while (resumption.offsetBytes < sizeBytes) {
        this.#lanes.decide();
        this.#plan();
        const segment = this.#segments[0];
        if (segment?.range.startByte === resumption.offsetBytes) yield* this.#readSegment(segment);
        else yield* this.#readOwn(segment?.range.startByte ?? this.#nextEnd());
      }
    } finally {
      this.#giveUpSegments();
    }
  }

  /** Over the reader's own connection. */
  async *#readOwn(endByte: number, first?: BlobPart): AsyncGenerator<Uint8Array> {
    const { resumption } = this.#options;
    const chunks = resumption.read(endByte, first);
    this.#running += 1;
    this.#ownEnd = endByte;
    this.#plan();
    try {
      for (;;) {
        const step = await this.#timed(() => chunks.next());
        if (step.done) break;
        this.#lanes.received(step.value.length);
        yield step.value;
      }
    } finally {
      this.#running -= 1;
      await chunks.return(undefined);
    }
    if (resumption.offsetBytes === endByte) return;
    this.#hasRanges = false;
    this.#giveUpSegments();
  }

  async *#readSegment(segment: Segment): AsyncGenerator<Uint8Array> {
    const { resumption, ahead } = this.#options;
    for (;;) {
      const chunk = await this.#timed(() => segment.next());
      if (chunk === undefined) break;
      resumption.offsetBytes += chunk.length;
      yield chunk;
    }
    this.#segments.shift();
    ahead.giveMemory();
    if (segment.isComplete) return;
    this.#hasRanges &&= !segment.isWholeBlob;
    this.#lanes.failed();
    yield* this.#readOwn(segment.range.endByte);
  }

  /** Begins as many segments as there are connections to spare, and memory. */
  #plan(): void {
    const { resumption, sizeBytes, limits, ahead, open } = this.#options;
    if (this.#stop.signal.aborted || !this.#hasRanges || this.#lanes.lanes === 1) return;
    let startByte = this.#segments.at(-1)?.range.endByte ??
      Math.max(resumption.offsetBytes, this.#ownEnd);
    while (this.#running < this.#lanes.lanes && startByte < sizeBytes && ahead.take()) {
      const range = { startByte, endByte: Math.min(startByte + limits.segmentBytes, sizeBytes) };
      this.#running += 1;
      this.#segments.push(
        new Segment(range, {
          open: (range) => open(range, this.#signal),
          onReceived: (bytes) => this.#lanes.received(bytes),
          onEnd: () => {
            this.#running -= 1;
            ahead.giveConnection();
            this.#plan();
          },
        }),
      );
      startByte = range.endByte;
    }
  }

  /** How far one connection reads: on, when it is known to be enough; else only until more can be known. */
  #nextEnd(): number {
    const { resumption: { offsetBytes }, sizeBytes, limits } = this.#options;
    if (!this.#hasRanges) return sizeBytes;
    const atOnceBytes = this.#lanes.lanes > 1 ? 0 : this.#lanes.worthwhileBytes;
    return Math.min(offsetBytes + Math.max(limits.segmentBytes, atOnceBytes), sizeBytes);
  }

  #giveUpSegments(): void {
    this.#stop.abort();
    for (const _segment of this.#segments) this.#options.ahead.giveMemory();
    this.#segments = [];
  }

  async #timed<T>(wait: () => Promise<T>): Promise<T> {
    const startedMs = performance.now();
    const result = await wait();
    this.#lanes.waited(performance.now() - startedMs);
    return result;
  }
}
