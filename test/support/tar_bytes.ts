/** Tar archives byte by byte, made without the code under test. */

const BLOCK_BYTES = 512;

export type TarEntry = {
  readonly name: string;
  /** The format's own letter; default "0", a regular file. */
  readonly type?: string;
  readonly bytes?: Uint8Array;
  /** What the header says instead of the true size: twelve characters. */
  readonly sizeField?: string;
  readonly magic?: string;
};

/** One entry: header, content, padding. */
export function tarEntry({ name, type = "0", bytes = new Uint8Array(), ...fields }: TarEntry): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  const put = (text: string, offset: number) => block.set(new TextEncoder().encode(text), offset);
  put(name, 0);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(fields.sizeField ?? `${bytes.length.toString(8).padStart(11, "0")} `, 124);
  put("00000000000 ", 136);
  put("        ", 148);
  put(type, 156);
  put(fields.magic ?? "ustar\x0000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return concat(block, bytes, new Uint8Array(-bytes.length & (BLOCK_BYTES - 1)));
}

/** The two blocks of zeros that end an archive. */
export const TAR_END = new Uint8Array(2 * BLOCK_BYTES);

export function tarOf(...entries: readonly TarEntry[]): Uint8Array {
  return concat(...entries.map(tarEntry), TAR_END);
}

/** The payload of a pax header. */
export function paxRecords(records: Readonly<Record<string, string>>): Uint8Array {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    const bytes = new TextEncoder().encode(rest).length;
    const length = [1, 2, 3, 4].map((digits) => bytes + digits).find((total) =>
      String(total).length + bytes === total
    );
    return `${length}${rest}`;
  });
  return new TextEncoder().encode(lines.join(""));
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
