/**
 * Text from outside, fit for one line of a terminal or a log: control characters (escape sequences and line breaks
 * among them) and broken Unicode become visible escapes.
 */
export function printable(text: string): string {
  return text.toWellFormed().replace(
    /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu,
    (character) => {
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    },
  );
}
