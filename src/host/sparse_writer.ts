import type { OpenFile } from "./file_system.ts";

/** Granularity of holes, bytes: the block of every file system we meet. */
export const HOLE_BYTES = 4096;

/**
 * Writes `bytes` at `offsetBytes` of a fresh file, leaving out every whole block of zeros: a hole reads as
 * zeros, and takes neither space nor time. Whoever writes the last bytes truncates the file to its size,
 * because a hole at the end does not extend it.
 *
 * @param bytes begins at a multiple of 4 in its buffer
 * @param offsetBytes a multiple of {@link HOLE_BYTES}
 * @returns whether the last bytes were left out, so that the file may not reach as far as they do
 */
export async function writeSparsely(
  file: Pick<OpenFile, "write">,
  bytes: Uint8Array,
  offsetBytes: number,
): Promise<boolean> {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
  let start = 0;
  let isHoleLast = false;
  while (start < bytes.length) {
    if (isZeroBlock(words, start, bytes.length)) {
      start += HOLE_BYTES;
      isHoleLast = true;
      continue;
    }
    let end = start + HOLE_BYTES;
    while (end < bytes.length && !isZeroBlock(words, end, bytes.length)) end += HOLE_BYTES;
    await file.write(bytes.subarray(start, end), offsetBytes + start);
    start = end;
    isHoleLast = false;
  }
  return isHoleLast;
}

/** A last, partial block counts as content: there is nothing to gain from it. */
function isZeroBlock(words: Uint32Array, start: number, length: number): boolean {
  if (start + HOLE_BYTES > length) return false;
  for (let word = start / 4; word < (start + HOLE_BYTES) / 4; word++) if (words[word] !== 0) return false;
  return true;
}
