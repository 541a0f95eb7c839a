import { type Command, Option } from "commander";
import { z } from "zod";
import { LOG_LEVELS } from "./logging.ts";

/** The flags that every command takes, before its name or after it. */
const GLOBAL_FLAGS: readonly (readonly [flags: string, description: string])[] = [
  ["--root <dir>", "where images and machines are kept (BOOTSHIM_ROOT)"],
  ["--config <file>", "configuration file (BOOTSHIM_CONFIG)"],
  ["--connect <uri>", "libvirt connection (default: qemu:///system for root, else qemu:///session)"],
  ["--socket <path>", "ask the service that listens there, where it does that (BOOTSHIM_SOCKET)"],
  ["-o, --output <format>", "text or json (default: text)"],
  ["--log-level <level>", `${LOG_LEVELS.join(", ")} (default: warning, with -o json error)`],
  ["--log-format <format>", "text or json (default: text)"],
  ["-q, --quiet", "no progress, no notes"],
  ["--no-progress", "plain lines instead of progress bars"],
];

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
  for (const [flags, description] of GLOBAL_FLAGS) {
    const option = new Option(flags, description);
    // Listed once, in the program's own help.
    if (!taken.has(option.long)) command.addOption(isProgram ? option : option.hideHelp());
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
