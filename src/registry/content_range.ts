/** The bytes a 206 answer says it carries: `firstByte` to `lastByte`, both included. */
export type ContentRange = { readonly firstByte: number; readonly lastByte: number };

/** 15 digits stay below 2^53, so no number is rounded. */
const GRAMMAR = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/i;

/**
 * Reads the Content-Range of an answer to `Range: bytes=firstByte-…`.
 *
 * @param wanted the first byte asked for, and the size of the whole blob
 * @returns undefined when it is malformed, begins elsewhere, ends outside the blob, or states another total; a total
 *   of `*` is no contradiction. The end may come earlier than asked for.
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14.4
 */
export function parseContentRange(
  value: string | undefined,
  wanted: { readonly firstByte: number; readonly sizeBytes: number },
): ContentRange | undefined {
  const [, first, last, total] = GRAMMAR.exec(value ?? "") ?? [];
  const range = { firstByte: Number(first), lastByte: Number(last) };
  const fits = range.firstByte === wanted.firstByte &&
    range.firstByte <= range.lastByte && range.lastByte < wanted.sizeBytes &&
    (total === "*" || Number(total) === wanted.sizeBytes);
  return fits ? range : undefined;
}
