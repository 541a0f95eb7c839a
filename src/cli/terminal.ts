/**
 * @module cli: argv in, one use case, text or JSON out. May import everything but `main.ts`. Invariants: stdout carries
 * the result and nothing else; every failure ends in one line with its code (`-o json`: one JSON document) on stderr.
 */

/** The streams and facts of the process that the command line needs. Given by `main.ts`, faked by tests. */
export type Terminal = {
  readonly writeOut: (text: string) => void;
  readonly writeError: (text: string) => void;
  readonly isErrorTerminal: boolean;
  readonly isInputTerminal: boolean;
  /** `NO_COLOR` is unset and stderr is a terminal. */
  readonly hasColor: boolean;
};
