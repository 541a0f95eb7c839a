import type { Command } from "commander";

/** Ends a command's help with examples, each of them the words after the program's name. */
export function addExamples(command: Command, examples: readonly string[]): void {
  command.addHelpText("after", ["\nExamples:", ...examples.map((each) => `  bootshim ${each}`)].join("\n"));
}
