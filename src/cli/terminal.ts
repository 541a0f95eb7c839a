/**
 * @module cli: argv in, one use case, text or JSON out. May import everything but `main.ts`. Invariants: stdout carries
 * the result and nothing else; every failure ends in one line with its code (`-o json`: one JSON document) on stderr.
 */

/**
 * Whoever read our standard output has gone (`bootshim run … | head`). The command cleans up as after any failure, and
 * ends without a word: nothing went wrong.
 */
export class ReaderGone extends Error {
  /** What a shell sees of a filter that SIGPIPE ended. */
  static readonly EXIT_CODE = 141;
}

/** The streams and facts of the process that the command line needs. Given by `main.ts`, faked by tests. */
export type Terminal = {
  /** @throws {ReaderGone} */
  readonly writeOut: (text: string) => void;
  /** Never throws: there would be nobody left to tell. */
  readonly writeError: (text: string) => void;
  /** The width of the terminal that standard output is; null when it is none. */
  readonly outColumns: number | null;
  /** Whether standard output is a terminal with looks, and nobody forbade them by `NO_COLOR`. */
  readonly hasOutColour: boolean;
  readonly isErrorTerminal: boolean;
  readonly isInputTerminal: boolean;
};
