import type { Command, Option } from "commander";
import { ARGUMENT_VALUES, OPTION_VALUES, type ValueKind } from "./option_values.ts";

export type Candidate = { readonly word: string; readonly summary: string };

export type Completion = {
  readonly candidates: readonly Candidate[];
  /** What the shell itself adds. */
  readonly paths: "none" | "files" | "directories";
};

/** What only this host knows: the names of its machines or images. Options are those typed so far, by long name. */
export type LookUp = (
  kind: "machine" | "image",
  options: ReadonlyMap<string, string>,
) => Promise<readonly string[]>;

const NOTHING: Completion = { candidates: [], paths: "none" };

/**
 * What may stand where the cursor is.
 *
 * @param typed the words after the program's name up to the cursor; the last is the one being typed, perhaps empty
 */
export async function completeWords(
  program: Command,
  typed: readonly string[],
  lookUp: LookUp,
): Promise<Completion> {
  const current = typed.at(-1) ?? "";
  const before = readWords(program, typed.slice(0, -1));
  if (before.hasUnknownCommand) return NOTHING;
  if (before.unanswered) {
    return await completeValue(valueOf(before, before.unanswered), { current, before, lookUp, program });
  }
  const [, flag, value] = before.isOver ? [] : /^(--[a-z-]+)=(.*)$/s.exec(current) ?? [];
  if (flag !== undefined && value !== undefined) {
    const option = findOption(before, flag);
    if (!option) return NOTHING;
    const found = await completeValue(valueOf(before, option), { current: value, before, lookUp, program });
    return {
      ...found,
      candidates: found.candidates.map((each) => ({ ...each, word: `${flag}=${each.word}` })),
    };
  }
  if (current.startsWith("-") && !before.isOver) {
    return { candidates: flagsOf(before, current), paths: "none" };
  }
  const argument = before.command
    ? argumentValue(before.command, before.argumentCount)
    : { kind: "command" } as const;
  return await completeValue(argument, { current, before, lookUp, program });
}

/** What the words before the cursor mean. */
type Before = {
  readonly program: Command;
  command: Command | undefined;
  hasUnknownCommand: boolean;
  argumentCount: number;
  readonly options: Map<string, string>;
  readonly given: Set<string>;
  /** An option that waits for its value. */
  unanswered: Option | undefined;
  /** After `--` nothing is an option. */
  isOver: boolean;
};

function readWords(program: Command, words: readonly string[]): Before {
  const before: Before = {
    program,
    command: undefined,
    hasUnknownCommand: false,
    argumentCount: 0,
    options: new Map(),
    given: new Set(),
    unanswered: undefined,
    isOver: false,
  };
  for (const word of words) readWord(before, word);
  return before;
}

function readWord(before: Before, word: string): void {
  const { program, unanswered } = before;
  if (unanswered) {
    before.options.set(unanswered.long ?? "", word);
    before.unanswered = undefined;
  } else if (word === "--") before.isOver = true;
  else if (word.startsWith("-") && word !== "-" && !before.isOver) {
    const [name = "", value] = word.split(/=(.*)/s, 2);
    const option = findOption(before, name);
    if (!option?.long) return;
    before.given.add(option.long);
    if (value !== undefined) before.options.set(option.long, value);
    else if (option.required) before.unanswered = option;
  } else if (before.command) before.argumentCount += 1;
  else {
    before.command = program.commands.find((command) => command.name() === word);
    before.hasUnknownCommand ||= before.command === undefined;
  }
}

/** A command's own options are the stronger. */
function optionsOf({ program, command }: Before): readonly Option[] {
  const own = command?.options ?? [];
  return [...own, ...program.options.filter(({ long }) => !own.some((option) => option.long === long))];
}

function findOption(before: Before, name: string): Option | undefined {
  return optionsOf(before).find(({ short, long }) => name === long || name === short);
}

/** `build --config` says what the image is made of, and is no file. */
function valueOf({ command }: Before, { long }: Option): ValueKind {
  if (command?.name() === "build" && long === "--config") return { kind: "unknown" };
  return OPTION_VALUES[long ?? ""] ?? { kind: "unknown" };
}

function argumentValue(command: Command, index: number): ValueKind {
  const { registeredArguments } = command;
  const last = registeredArguments.at(-1);
  const argument = registeredArguments[index] ?? (last?.variadic ? last : undefined);
  return argument ? ARGUMENT_VALUES[argument.name()] ?? { kind: "unknown" } : { kind: "unknown" };
}

function flagsOf(before: Before, current: string): Candidate[] {
  return optionsOf(before).flatMap(({ long, description, defaultValue }) => {
    if (long === undefined || long === null || !long.startsWith(current)) return [];
    // One that may be repeated begins as an empty list.
    return before.given.has(long) && !Array.isArray(defaultValue)
      ? []
      : [{ word: long, summary: description }];
  });
}

type Place = {
  readonly current: string;
  readonly before: Before;
  readonly lookUp: LookUp;
  readonly program: Command;
};

async function completeValue(
  value: ValueKind,
  { current, before, lookUp, program }: Place,
): Promise<Completion> {
  const of = (words: readonly string[], summary = "") => words.map((word) => ({ word, summary }));
  const starting = (candidates: readonly Candidate[]): Completion => ({
    candidates: candidates.filter(({ word }) => word.startsWith(current)),
    paths: "none",
  });
  switch (value.kind) {
    case "words":
      return starting(of(value.words));
    case "command":
      return starting(
        program.commands.map((command) => ({ word: command.name(), summary: command.description() })),
      );
    case "machine":
    case "image":
      return starting(of(await lookUp(value.kind, before.options), value.kind));
    case "machine or image":
      return starting([
        ...of(await lookUp("machine", before.options), "machine"),
        ...of(await lookUp("image", before.options), "image"),
      ]);
    case "file":
      return { candidates: [], paths: "files" };
    case "directory":
      return { candidates: [], paths: "directories" };
    case "unknown":
      return NOTHING;
  }
}
