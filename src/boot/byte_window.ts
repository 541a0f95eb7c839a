/**
 * What a recogniser may see of a file: its size, and bounded reads. A window may end before the file does (only the
 * first part of a layer was fetched): what lies beyond reads as absent.
 */
export type ByteWindow = {
  readonly sizeBytes: number;
  /** @returns up to `lengthBytes` bytes from `offsetBytes`; fewer, or none, where the window ends */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>;
};

/** A window onto bytes in memory. */
export function windowOf(bytes: Uint8Array, sizeBytes = bytes.length): ByteWindow {
  return { sizeBytes, read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)) };
}

/** Little-endian fields at fixed places; a field outside the bytes is undefined, never a throw. */
export class Fields {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.#bytes.length;
  }

  u8(offset: number): number | undefined {
    return this.#has(offset, 1) ? this.#view.getUint8(offset) : undefined;
  }

  u16(offset: number): number | undefined {
    return this.#has(offset, 2) ? this.#view.getUint16(offset, true) : undefined;
  }

  u32(offset: number): number | undefined {
    return this.#has(offset, 4) ? this.#view.getUint32(offset, true) : undefined;
  }

  /** As a number: 2^53 - 1 and above are given as Infinity, because no real offset is that large. */
  u64(offset: number): number | undefined {
    if (!this.#has(offset, 8)) return undefined;
    const value = this.#view.getBigUint64(offset, true);
    return value >= BigInt(Number.MAX_SAFE_INTEGER) ? Infinity : Number(value);
  }

  /** Whether these characters (one byte each) stand at the place. */
  has(offset: number, characters: string): boolean {
    if (!this.#has(offset, characters.length)) return false;
    for (let i = 0; i < characters.length; i++) {
      if (this.#bytes[offset + i] !== characters.charCodeAt(i)) return false;
    }
    return true;
  }

  /** Lower-case hexadecimal of a range; shorter where the bytes end. */
  hex(offset: number, length: number): string {
    return [...this.#bytes.subarray(offset, offset + length)].map((byte) =>
      byte.toString(16).padStart(2, "0")
    ).join("");
  }

  isZero(offset: number, length: number): boolean {
    return this.#bytes.subarray(offset, offset + length).every((byte) => byte === 0);
  }

  #has(offset: number, length: number): boolean {
    return offset >= 0 && offset + length <= this.#bytes.length;
  }
}
