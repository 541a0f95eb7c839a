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

/** Enough for every header that is looked for at the beginning, ISO 9660's at 32 KiB among them. */
const HEAD_BYTES = 64 * 1024;

/** The same window, whose beginning is read once: recognisers look at many small places there. */
export function withHead(file: ByteWindow): ByteWindow {
  const headBytes = Math.min(HEAD_BYTES, file.sizeBytes);
  let head: Promise<Uint8Array> | undefined;
  return {
    sizeBytes: file.sizeBytes,
    read: async (offset, length) => {
      if (offset + length > headBytes) return await file.read(offset, length);
      head ??= file.read(0, headBytes);
      return (await head).subarray(offset, offset + length);
    },
  };
}

/** A part of a file, as far as the file has it; cut when the window ended before the part and the file did. */
export type Part = { readonly fields: Fields; readonly isCut: boolean };

/** Reads a part, whatever its place: one that a hostile header names may lie outside any file. */
export async function readPart(file: ByteWindow, offsetBytes: number, lengthBytes: number): Promise<Part> {
  const availableBytes = Math.min(lengthBytes, file.sizeBytes - offsetBytes);
  if (!(offsetBytes >= 0 && availableBytes > 0)) {
    return { fields: new Fields(new Uint8Array()), isCut: false };
  }
  const bytes = await file.read(offsetBytes, availableBytes);
  return { fields: new Fields(bytes), isCut: bytes.length < availableBytes };
}

/** The end of a sentence about a file whose window ended before the answer. */
export function cannotBeTold(visibleBytes: number): string {
  if (visibleBytes === 0) return "cannot be told without its bytes";
  const visible = visibleBytes < 1024 ? `${visibleBytes} bytes` : `${Math.floor(visibleBytes / 1024)} KiB`;
  return `cannot be told from its first ${visible}`;
}

/** Fields at fixed places, little-endian unless named otherwise; one outside the bytes is undefined, never a throw. */
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
    return this.#has(offset, 8) ? sizeFrom(this.#view.getBigUint64(offset, true)) : undefined;
  }

  u32be(offset: number): number | undefined {
    return this.#has(offset, 4) ? this.#view.getUint32(offset) : undefined;
  }

  /** As {@link u64}. */
  u64be(offset: number): number | undefined {
    return this.#has(offset, 8) ? sizeFrom(this.#view.getBigUint64(offset)) : undefined;
  }

  /** Whether these characters (one byte each) stand at the place. */
  has(offset: number, characters: string): boolean {
    if (!this.#has(offset, characters.length)) return false;
    for (let i = 0; i < characters.length; i++) {
      if (this.#bytes[offset + i] !== characters.charCodeAt(i)) return false;
    }
    return true;
  }

  /** The bytes of a range, not a copy; shorter where the bytes end. */
  slice(offset: number, length: number): Uint8Array {
    return this.#bytes.subarray(offset, offset + length);
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

function sizeFrom(value: bigint): number {
  return value >= BigInt(Number.MAX_SAFE_INTEGER) ? Infinity : Number(value);
}
