/** A bare word, or a quoted one. */
const WORD = String.raw`(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')`;
const KEY = String.raw`${WORD}(?:\s*\.\s*${WORD})*`;
const WORDS = new RegExp(WORD, "g");
/** `[a.b]` and `[[a.b]]`. */
const HEADER = new RegExp(String.raw`^\s*\[(\[?)\s*(${KEY})\s*\]`);
/** `a.b = …`. */
const SETTING = new RegExp(String.raw`^\s*(${KEY})\s*=`);

/**
 * The line on which a key is written, or else the nearest table around it: TOML parsers keep no positions of values. What
 * a text of several lines holds may be taken for a key; then the line is wrong, and the key's name is not.
 *
 * @param text a valid TOML document
 * @param path from the document's top, as the parsed value has it: the words of tables, and numbers in arrays
 * @returns counted from 1; undefined when nothing around it is written either
 */
export function lineOfKey(text: string, path: readonly PropertyKey[]): number | undefined {
  const wanted = path.map(String);
  /** How often each array of tables was opened so far. */
  const opened = new Map<string, number>();
  let table: readonly string[] = [];
  let found: { readonly line: number; readonly depth: number } | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const [, isArray, header] = HEADER.exec(line) ?? [];
    const [, setting] = SETTING.exec(line) ?? [];
    if (header !== undefined) table = tableOf(wordsOf(header), { isArray: isArray !== "", opened });
    else if (setting === undefined) continue;
    const written = setting === undefined ? table : [...table, ...wordsOf(setting)];
    const depth = Math.min(written.length, wanted.length);
    const isOnTheWay = written.slice(0, depth).every((word, at) => word === wanted[at]);
    if (isOnTheWay && depth > (found?.depth ?? 0)) found = { line: index + 1, depth };
  }
  return found?.line;
}

/** A header's place in the parsed value: below an array of tables, everything belongs to the one opened last. */
function tableOf(
  words: readonly string[],
  { isArray, opened }: { readonly isArray: boolean; readonly opened: Map<string, number> },
): readonly string[] {
  const place: string[] = [];
  for (const [index, word] of words.entries()) {
    place.push(word);
    const name = JSON.stringify(place);
    let count = opened.get(name);
    if (isArray && index === words.length - 1) opened.set(name, count = count === undefined ? 0 : count + 1);
    if (count !== undefined) place.push(String(count));
  }
  return place;
}

function wordsOf(key: string): readonly string[] {
  return (key.match(WORDS) ?? []).map((word) => {
    if (word.startsWith("'")) return word.slice(1, -1);
    return word.startsWith('"') ? unescaped(word) : word;
  });
}

/** TOML's escapes are JSON's and a few more; a word with one of those is compared as it is written. */
function unescaped(quoted: string): string {
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted.slice(1, -1);
  }
}
