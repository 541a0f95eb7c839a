/**
 * Text from outside, fit for one line of a terminal or a log: control characters, escape sequences, line breaks and
 * what turns the direction of writing become visible escapes; half a surrogate pair becomes U+FFFD.
 *
 * JSON on one line stays the same value: what JSON leaves bare stands within its strings, where the escapes are its own.
 */
export function printable(text: string): string {
  return text.toWellFormed().replace(
    /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu,
    (character) => {
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    },
  );
}
