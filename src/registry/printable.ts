/**
 * A server's words as a terminal or a log may show them: ASCII, everything else spelt out.
 *
 * @param maxLength of the result; what is cut off shows as an ellipsis
 */
export function printable(text: string, maxLength: number): string {
  const plain = text.slice(0, maxLength).replace(
    /[^\x20-\x7e]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
  return plain.length < maxLength && text.length <= maxLength ? plain : `${plain.slice(0, maxLength - 1)}…`;
}
