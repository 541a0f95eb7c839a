import type { Terminal } from "../../src/cli/terminal.ts";

export type FakeTerminal = Terminal & { readonly written: { out: string; error: string } };

/** A terminal that keeps what was written to it. Its streams are files unless told otherwise. */
export function fakeTerminal(facts: Partial<Terminal> = {}): FakeTerminal {
  const written = { out: "", error: "" };
  return {
    written,
    writeOut: (text) => void (written.out += text),
    writeError: (text) => void (written.error += text),
    outColumns: null,
    hasOutColour: false,
    isErrorTerminal: false,
    isInputTerminal: false,
    ...facts,
  };
}
