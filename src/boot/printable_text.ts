/**
 * The text in a fixed field of a file, without what fills it up behind (NULs, blanks, line ends); null when it is empty,
 * no UTF-8, or holds anything that is not printable: it may end on somebody's terminal.
 */
export function printableText(field: Uint8Array): string | null {
  const end = field.indexOf(0);
  const bytes = end === -1 ? field : field.subarray(0, end);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes).trim();
  } catch {
    // The one thing that decode() throws for: bytes that are no UTF-8.
    return null;
  }
  // Control and format characters (the latter turn the direction of writing around), lone surrogates.
  return text === "" || /[^\P{C}\n\t]/u.test(text) ? null : text;
}
