import type { Command } from "commander";
import type { Composition } from "./invocation.ts";

type Register = (program: Command, composition: Composition) => void;

/** Commands that share a file, in the order of the help. */
type CommandGroup = { readonly names: readonly string[]; readonly load: () => Promise<Register> };

const GROUPS: readonly CommandGroup[] = [
  {
    names: ["prepare"],
    load: async () => (await import("./commands/prepare_command.ts")).registerPrepare,
  },
  { names: ["run"], load: async () => (await import("./commands/run_command.ts")).registerRun },
  { names: ["inspect"], load: async () => (await import("./commands/inspect_command.ts")).registerInspect },
  {
    names: ["pull", "images", "build", "tag"],
    load: async () => (await import("./commands/image_commands.ts")).registerImageCommands,
  },
  {
    names: ["rm", "pin", "unpin", "gc", "check"],
    load: async () => (await import("./commands/cache_commands.ts")).registerCacheCommands,
  },
  {
    names: ["push", "export", "import"],
    load: async () => (await import("./commands/transfer_commands.ts")).registerTransferCommands,
  },
  {
    names: ["tags", "referrers"],
    load: async () => (await import("./commands/registry_commands.ts")).registerRegistryCommands,
  },
  {
    names: ["xml", "qemu"],
    load: async () => (await import("./commands/definition_commands.ts")).registerDefinitionCommands,
  },
  {
    names: [
      "machines",
      "machine",
      "release",
      "console",
      "define",
      "start",
      "shutdown",
      "destroy",
      "undefine",
    ],
    load: async () => (await import("./commands/machine_commands.ts")).registerMachineCommands,
  },
  { names: ["doctor"], load: async () => (await import("./commands/doctor_command.ts")).registerDoctor },
  { names: ["serve"], load: async () => (await import("./commands/serve_command.ts")).registerServe },
  {
    names: ["completion"],
    load: async () => (await import("./commands/completion_command.ts")).registerCompletion,
  },
];

/**
 * What registers the commands that `argv` may mean: loading all of them is a third of a start. A word may be a flag's
 * value as well as a command, so every group counts that is named anywhere. Where the command is not plain (none, an
 * unknown one, the help), all do.
 */
export async function loadCommands(argv: readonly string[]): Promise<readonly Register[]> {
  const [first = ""] = argv;
  // The version is the program's own word.
  if (first === "version" || (first === "--version" && argv.length === 1)) return [];
  // What is completed may be any of them.
  if (argv.includes("completion") && argv.includes("candidates")) return await loadAll();
  const named = GROUPS.filter(({ names }) => names.some((name) => argv.includes(name)));
  const isPlain = named.length > 0 &&
    (first.startsWith("-") || named.some(({ names }) => names.includes(first)));
  return isPlain ? await Promise.all(named.map(({ load }) => load())) : await loadAll();
}

async function loadAll(): Promise<readonly Register[]> {
  return await Promise.all(GROUPS.map(({ load }) => load()));
}
