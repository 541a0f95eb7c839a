/** Takes exact amounts out of chunks of any size; holds no more than one chunk and what was asked for. */
export class ChunkReader {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array();

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#iterator = chunks[Symbol.asyncIterator]();
  }

  /** The next bytes: exactly so many, fewer only at the end. */
  async read(lengthBytes: number): Promise<Uint8Array> {
    const first = await this.readSome(lengthBytes);
    if (first.length === lengthBytes || first.length === 0) return first;
    const bytes = new Uint8Array(lengthBytes);
    bytes.set(first);
    let filled = first.length;
    while (filled < lengthBytes) {
      const part = await this.readSome(lengthBytes - filled);
      if (part.length === 0) break;
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes.subarray(0, filled);
  }

  /** The next bytes as they come: at least one and at most so many; none at the end. */
  async readSome(lengthBytes: number): Promise<Uint8Array> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#iterator.next();
      if (done) return new Uint8Array();
      this.#rest = value;
    }
    const part = this.#rest.subarray(0, lengthBytes);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }

  /** @returns how many bytes were passed over: fewer than asked for at the end */
  async skip(lengthBytes: number): Promise<number> {
    let skipped = 0;
    while (skipped < lengthBytes) {
      const { length } = await this.readSome(lengthBytes - skipped);
      if (length === 0) break;
      skipped += length;
    }
    return skipped;
  }

  /** Puts bytes back in front of what comes next. */
  unread(bytes: Uint8Array): void {
    const joined = new Uint8Array(bytes.length + this.#rest.length);
    joined.set(bytes);
    joined.set(this.#rest, bytes.length);
    this.#rest = joined;
  }

  /** Lets go of the source. */
  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}
