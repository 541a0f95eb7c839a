import { type Command, Option } from "commander";
import { z } from "zod";
import { LOG_LEVELS } from "./logging.ts";

type GlobalFlag = {
  readonly flags: string;
  readonly description: string;
  /** Says the same where the flag is not given. Root, configuration and service look for theirs where they are opened. */
  readonly variable?: string;
};

/** The flags that every command takes, before its name or after it. */
const GLOBAL_FLAGS: readonly GlobalFlag[] = [
  { flags: "--root <dir>", description: "where images and machines are kept [BOOTSHIM_ROOT]" },
  { flags: "--config <file>", description: "configuration file [BOOTSHIM_CONFIG]" },
  {
    flags: "--connect <uri>",
    description: "libvirt connection (default: qemu:///system for root, else qemu:///session)",
    variable: "BOOTSHIM_CONNECT",
  },
  {
    flags: "--socket <path>",
    description: "ask the service that listens there, where it does that [BOOTSHIM_SOCKET]",
  },
  {
    flags: "-o, --output <format>",
    description: "text or json (default: text)",
    variable: "BOOTSHIM_OUTPUT",
  },
  {
    flags: "--log-level <level>",
    description: `${LOG_LEVELS.join(", ")} (default: warning, with -o json error)`,
    variable: "BOOTSHIM_LOG_LEVEL",
  },
  {
    flags: "--log-format <format>",
    description: "text or json (default: text)",
    variable: "BOOTSHIM_LOG_FORMAT",
  },
  { flags: "-q, --quiet", description: "no progress, no notes", variable: "BOOTSHIM_QUIET" },
  {
    flags: "--no-progress",
    description: "plain lines instead of progress bars",
    variable: "BOOTSHIM_NO_PROGRESS",
  },
];

/** What a switch's variable may say; any other word is handed on, to be refused as the flag's value would be. */
const SWITCH_WORDS: Readonly<Record<string, boolean>> = {
  ...{ "1": true, true: true, yes: true },
  ...{ "0": false, false: false, no: false },
};

export const globalOptions = z.object({
  root: z.string().min(1, "must not be empty").optional(),
  config: z.string().optional(),
  connect: z.string().optional(),
  socket: z.string().min(1).optional(),
  output: z.enum(["text", "json"]).default("text"),
  logLevel: z.enum([...LOG_LEVELS, "warn"]).optional(),
  logFormat: z.enum(["text", "json"]).default("text"),
  quiet: z.boolean().default(false),
  progress: z.boolean().default(true),
});
export type GlobalOptions = z.infer<typeof globalOptions>;

/** Adds the global flags to a command. One that has a flag of the same name for itself keeps its own (`build --config`). */
export function addGlobalOptions(command: Command, { isProgram }: { readonly isProgram: boolean }): void {
  const taken = new Set(command.options.map((option) => option.long));
  for (const { flags, description, variable } of GLOBAL_FLAGS) {
    const option = new Option(flags, variable ? `${description} [${variable}]` : description);
    // Listed once, in the program's own help.
    if (!taken.has(option.long)) command.addOption(isProgram ? option : option.hideHelp());
  }
}

/** Takes what the environment says for the program's flags, before its words are read. Set to nothing is not set. */
export function addGlobalVariables(
  program: Command,
  variables: Readonly<Record<string, string | undefined>>,
): void {
  for (const { flags, variable } of GLOBAL_FLAGS) {
    const word = variable && variables[variable];
    if (!word) continue;
    const option = new Option(flags);
    const isSwitch = !option.required;
    const said = isSwitch ? SWITCH_WORDS[word.toLowerCase()] ?? word : word;
    program.setOptionValueWithSource(
      option.attributeName(),
      typeof said === "boolean" && option.negate ? !said : said,
      "env",
    );
  }
}

/** What was really given, to the program or to the command; the command, which comes later, is the stronger. */
export function givenOptions(command: Command): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  for (const each of [...command.parent ? [command.parent] : [], command]) {
    for (const [key, value] of Object.entries(each.opts())) {
      const isDefault = each.getOptionValueSource(key) === "default";
      if (!isDefault || !Object.hasOwn(given, key)) given[key] = value;
    }
  }
  return given;
}
