/**
 * Text from outside, fit for one line of a terminal or a log: control characters (escape sequences and line breaks
 * among them) and broken Unicode become visible escapes.
 */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what is replaced
  return text.toWellFormed().replace(
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
    (character) => {
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    },
  );
}
