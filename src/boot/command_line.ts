import { ShimError } from "../errors.ts";

/** The longest command line every supported kernel takes: COMMAND_LINE_SIZE of x86 and arm64 is 2,048 with its NUL. */
export const MAX_COMMAND_LINE_BYTES = 2047;

/** Where a command line comes from, strongest first. */
export type CommandLineParts = {
  /** `--cmdline`: replaces whatever the image says. */
  readonly replacement?: string | undefined;
  /** The text of the image's `cmdline` layer. */
  readonly layer?: string | undefined;
  /** `commandLine` of the image configuration. */
  readonly config?: string | undefined;
  /** `--append`, in order: each `KEY[=VALUE]` replaces that key or is added. */
  readonly appends?: readonly string[];
  /** Add `root=/dev/vda rw` when nothing names a root: the guest has a root disk. */
  readonly hasRootDisk?: boolean;
};

/**
 * The kernel's command line.
 *
 * @throws {ShimError} CMDLINE_INVALID for control characters, broken Unicode, or more than 2,047 bytes: a command line
 *   is never cut short; for an append that is not one word; for additions to a line with an open double quote
 * @see https://docs.kernel.org/admin-guide/kernel-parameters.html
 */
export function mergeCommandLine(parts: CommandLineParts): string {
  const base = trimEnd(parts.replacement ?? parts.layer ?? parts.config ?? "");
  requireValid(base);
  const original = splitWords(base);
  let words = original;
  for (const append of parts.appends ?? []) words = appendWord(words, append);
  if (parts.hasRootDisk && !kernelWords(words).some((word) => keyOf(word) === "root")) {
    words = insertParameters(words, ["root=/dev/vda", "rw"]);
  }
  // An untouched line is passed on as it is, blanks and all.
  if (words === original) return base;
  if (hasOpenQuote(base)) {
    throw new ShimError(
      "CMDLINE_INVALID",
      "Cannot add to the command line: a double quote in it is not closed, and would take in what is added",
    );
  }
  const line = words.join(" ");
  requireValid(line);
  return line;
}

/** Without the newlines and NULs at the end. By hand: a pattern takes quadratic time on a hostile run of newlines. */
function trimEnd(line: string): string {
  let end = line.length;
  while (end > 0 && "\n\r\0".includes(line.charAt(end - 1))) end--;
  return line.slice(0, end);
}

/** Splits at blanks outside double quotes, as the kernel's next_arg() does. Quotes stay in the words. */
function splitWords(line: string): string[] {
  return line.match(/(?:[^ "]|"[^"]*"?)+/g) ?? [];
}

function hasOpenQuote(text: string): boolean {
  return text.split('"').length % 2 === 0;
}

function keyOf(word: string): string {
  const equals = word.indexOf("=");
  return equals === -1 ? word : word.slice(0, equals);
}

/** Everything from the first `--` on is for init, not for the kernel. */
function kernelWords(words: readonly string[]): readonly string[] {
  const separator = words.indexOf("--");
  return separator === -1 ? words : words.slice(0, separator);
}

function insertParameters(words: readonly string[], added: readonly string[]): string[] {
  const before = kernelWords(words);
  return [...before, ...added, ...words.slice(before.length)];
}

/** Takes the place of the first word with that key; later words with that key go. */
function appendWord(words: string[], append: string): string[] {
  requireValid(append);
  const key = keyOf(append);
  if (key === "" || splitWords(append)[0] !== append || hasOpenQuote(append)) {
    throw new ShimError(
      "CMDLINE_INVALID",
      `Cannot append ${JSON.stringify(append)} to the command line: must be one KEY or KEY=VALUE`,
      {
        details: { remedy: "put a value with blanks into double quotes: --append 'key=\"a b\"'" },
      },
    );
  }
  const end = kernelWords(words).length;
  const isSame = (word: string, index: number) => keyOf(word) === key && index < end;
  const first = words.findIndex(isSame);
  if (first === -1) return insertParameters(words, [append]);
  return words.flatMap((word, index) => index === first ? [append] : isSame(word, index) ? [] : [word]);
}

function requireValid(line: string): void {
  const control = /\p{Cc}/u.exec(line);
  if (control) {
    const code = control[0].charCodeAt(0).toString(16).padStart(2, "0");
    throw new ShimError(
      "CMDLINE_INVALID",
      `Cannot use the command line: control character 0x${code} at position ${control.index}, must be printable text`,
    );
  }
  if (!line.isWellFormed()) {
    throw new ShimError(
      "CMDLINE_INVALID",
      "Cannot use the command line: it holds a broken Unicode character, must be valid UTF-8",
    );
  }
  const sizeBytes = new TextEncoder().encode(line).length;
  if (sizeBytes > MAX_COMMAND_LINE_BYTES) {
    throw new ShimError(
      "CMDLINE_INVALID",
      `Cannot use the command line: ${sizeBytes} bytes, must be at most ${MAX_COMMAND_LINE_BYTES} bytes`,
    );
  }
}
