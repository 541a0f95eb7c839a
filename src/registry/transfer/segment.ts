import type { BlobPart, ByteRange } from "./blob_part.ts";

export type SegmentOptions = {
  readonly open: (range: ByteRange) => Promise<BlobPart>;
  readonly onReceived: (bytes: number) => void;
  /** Nothing more will come. */
  readonly onEnd: () => void;
};

/**
 * A part of a blob that is fetched before its turn, and held in memory until then. Whatever breaks is not told: what
 * came stays, and whoever reads in order asks for the rest.
 */
export class Segment {
  readonly range: ByteRange;
  #chunks: Uint8Array[] = [];
  #receivedBytes = 0;
  #hasEnded = false;
  #isWholeBlob = false;
  #wake: (() => void) | undefined;

  constructor(range: ByteRange, options: SegmentOptions) {
    this.range = range;
    void this.#fetch(options).catch(() => {}).finally(() => {
      this.#hasEnded = true;
      this.#wake?.();
      options.onEnd();
    });
  }

  /** Whether all of it came; known when {@link next} has given undefined. */
  get isComplete(): boolean {
    return this.#receivedBytes === this.#lengthBytes;
  }

  /** Whether the server answered with all of the blob: it does not serve ranges. */
  get isWholeBlob(): boolean {
    return this.#isWholeBlob;
  }

  /** The next bytes in order; undefined when no more will come. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#chunks.length === 0 && !this.#hasEnded) {
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = undefined;
    }
    return this.#chunks.shift();
  }

  get #lengthBytes(): number {
    return this.range.endByte - this.range.startByte;
  }

  async #fetch({ open, onReceived }: SegmentOptions): Promise<void> {
    const part = await open(this.range);
    try {
      this.#isWholeBlob = part.startByte !== this.range.startByte || part.endByte > this.range.endByte;
      if (this.#isWholeBlob) return;
      for await (const chunk of part.chunks) {
        if (this.#receivedBytes + chunk.length > this.#lengthBytes) return;
        this.#receivedBytes += chunk.length;
        this.#chunks.push(chunk);
        onReceived(chunk.length);
        this.#wake?.();
      }
    } finally {
      part.discard();
    }
  }
}
