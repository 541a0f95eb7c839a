/** Characters that no POSIX shell gives a meaning; `=` has one in the first word, which is a program's name. */
const PLAIN_WORD = /^[A-Za-z0-9_@%+=:,./-]+$/;

/**
 * Gives the command as text for a POSIX shell, one option with its value a line, to be read and pasted. The shell makes
 * exactly these arguments of it, without expanding anything.
 *
 * @param argv the first is a program's name or path; no argument holds a NUL, which no shell can pass
 * @see https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html (POSIX.1-2017, section 2.2)
 */
export function quoteShell(argv: readonly string[]): string {
  return argv.map((argument, index) => {
    const separator = index === 0 ? "" : argument.startsWith("-") ? " \\\n  " : " ";
    return separator + quoteWord(argument);
  }).join("");
}

function quoteWord(word: string): string {
  return PLAIN_WORD.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
