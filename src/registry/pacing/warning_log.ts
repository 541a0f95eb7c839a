import { printable } from "../printable.ts";

const MAX_BYTES = 4096;
/** Of what is remembered, so that a server cannot fill memory or a log with new words each time. */
const MAX_WARNINGS = 100;

/** distribution-spec v1.1.1, "Warnings": `299 - "words"`, where a quote or a backslash in the words is escaped. */
const GRAMMAR = /^299 - "((?:[^"\\]|\\.)*)"$/;

/** What registries want people to know. Each warning is told once, and nothing is done about it. */
export class WarningLog {
  readonly #told = new Set<string>();
  readonly #tell: (message: string) => void;

  constructor(tell: (message: string) => void = () => {}) {
    this.#tell = tell;
  }

  /** @param values of the Warning header fields of one answer of `host` */
  note(host: string, values: readonly string[]): void {
    for (const value of values) {
      const words = GRAMMAR.exec(value.trim())?.[1]?.replace(/\\(.)/g, "$1");
      if (words === undefined || words === "") continue;
      this.tellOnce(`registry "${host}" warns: ${printable(words, MAX_BYTES)}`);
    }
  }

  tellOnce(message: string): void {
    if (this.#told.has(message) || this.#told.size >= MAX_WARNINGS) return;
    this.#told.add(message);
    this.#tell(message);
  }
}
