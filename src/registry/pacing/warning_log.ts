import { printable } from "../printable.ts";

/** Of the words of one answer's warnings together, as they are told: distribution-spec v1.1.1, "Warnings". */
const MAX_BYTES = 4096;
/** What an ellipsis has more than the one character that it stands for. */
const ELLIPSIS_EXCESS_BYTES = 2;
/** Of what is remembered, so that a server cannot fill memory or a log with new words each time. */
const MAX_WARNINGS = 100;

/** What registries want people to know. Each warning is told once, and nothing is done about it. */
export class WarningLog {
  readonly #told = new Set<string>();
  readonly #tell: (message: string) => void;

  constructor(tell: (message: string) => void = () => {}) {
    this.#tell = tell;
  }

  /** @param values of the Warning header fields of one answer of `host`, of any number and length */
  note(host: string, values: readonly string[]): void {
    let roomBytes = MAX_BYTES;
    for (const value of new Set(values)) {
      if (roomBytes <= ELLIPSIS_EXCESS_BYTES) return;
      const words = wordsOf(value.trim());
      if (words === "") continue;
      const shown = printable(words, roomBytes - ELLIPSIS_EXCESS_BYTES);
      // Those that were told before count, too, so that the same answer always says the same.
      roomBytes -= Buffer.byteLength(shown);
      this.tellOnce(`registry "${host}" warns: ${shown}`);
    }
  }

  tellOnce(message: string): void {
    if (this.#told.has(message) || this.#told.size >= MAX_WARNINGS) return;
    this.#told.add(message);
    this.#tell(message);
  }
}

const [BEFORE, AFTER] = ['299 - "', '"'];

/**
 * The words of a warning, as far as they could be told; none for what is not in the form agreed on. Not by a pattern: one
 * with a choice in a loop runs out of stack at a megabyte.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#warnings `299 - "words"`, where a quote or a
 *   backslash in the words is escaped
 */
function wordsOf(warning: string): string {
  if (!warning.startsWith(BEFORE)) return "";
  let at = BEFORE.length;
  while (at < warning.length && warning[at] !== AFTER) at += warning[at] === "\\" ? 2 : 1;
  if (at !== warning.length - 1) return "";
  // An escape is two characters for one.
  return warning.slice(BEFORE.length, at).slice(0, 2 * MAX_BYTES).replace(/\\(.)/g, "$1");
}
