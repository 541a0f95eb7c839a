import { Command, CommanderError } from "commander";
import { ShimError } from "../errors.ts";
import { loadCommands } from "./command_groups.ts";
import { addExamples } from "./examples.ts";
import { addGlobalOptions, addGlobalVariables, globalOptions } from "./global_options.ts";
import { type Composition, readOptions } from "./invocation.ts";
import { formatError } from "./report_error.ts";
import { ReaderGone } from "./terminal.ts";
import { VERSION } from "./version.ts";

/**
 * Runs one command.
 *
 * @param argv the words after the program's name
 * @returns the exit code: 0, or that of the error's code
 */
export async function runProgram(argv: readonly string[], composition: Composition): Promise<number> {
  const { terminal } = composition;
  const program = await makeProgram(argv, composition);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return 0;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
    if (thrown instanceof ReaderGone) return ReaderGone.EXIT_CODE;
    const error = thrown instanceof CommanderError ? usageError(thrown) : thrown;
    // The flags may be what was wrong, so the style of the report is looked up in argv itself.
    const { variables } = composition.environment;
    const format = outputWord(argv) ?? variables["BOOTSHIM_OUTPUT"];
    const isDebug = wantsDebug(argv) || /^(debug|trace)$/.test(variables["BOOTSHIM_LOG_LEVEL"] ?? "");
    const style = { format: format === "json" ? "json" : "text", isDebug } as const;
    terminal.writeError(formatError(error, style));
    return error instanceof ShimError ? error.exitCode : 70;
  }
}

async function makeProgram(argv: readonly string[], composition: Composition): Promise<Command> {
  const { terminal } = composition;
  const program = new Command("bootshim")
    .description("Turns an operating-system image in an OCI registry into something a hypervisor can boot.")
    .version(VERSION, "--version", "print the version")
    // Otherwise the program would take `build --config` for its own.
    .enablePositionalOptions()
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: terminal.writeOut,
      // What commander would print of an error is thrown as well, and told once, in our form.
      writeErr: () => {},
      getOutHasColors: () => false,
    });
  addGlobalOptions(program, { isProgram: true });
  addGlobalVariables(program, composition.environment.variables);
  for (const register of await loadCommands(argv)) register(program, composition);
  registerVersion(program, composition);
  registerHelp(program);
  for (const command of program.commands) addGlobalOptions(command, { isProgram: false });
  addExamples(program, [
    "inspect registry.example.org/os/linux:1",
    "prepare registry.example.org/os/linux:1 --machine vm-1",
    "run oci:./layout:1",
  ]);
  return program;
}

/** Asks for no settings: it must also answer where the configuration is what is broken. */
function registerVersion(program: Command, { terminal }: Composition): void {
  const command = program.command("version").description("print the version");
  command.action(() => {
    const { output } = readOptions(command, globalOptions);
    terminal.writeOut(output === "json" ? JSON.stringify({ version: VERSION }) + "\n" : `${VERSION}\n`);
  });
}

/** Commander's own takes an unknown command for none. */
function registerHelp(program: Command): void {
  program.command("help").argument("[command]").description("show what a command does and takes").action(
    (name: string | undefined) => {
      const command = name === undefined ? program : program.commands.find((each) => each.name() === name);
      if (command) return command.outputHelp();
      throw new ShimError(
        "REQUEST_INVALID",
        `Cannot help with ${JSON.stringify(name)}: there is no such command`,
        {
          details: { remedy: "see: bootshim help" },
        },
      );
    },
  );
}

function usageError(error: CommanderError): ShimError {
  const message = error.code === "commander.help"
    ? "no command was given"
    : error.message.replace(/^error: /, "").split("\n")[0]?.replace(/\.$/, "");
  return new ShimError("REQUEST_INVALID", `Cannot read the command line: ${message}`, {
    cause: error,
    details: { remedy: "see: bootshim help" },
  });
}

/** The last output format that `argv` names, in whatever way it is spelt. */
function outputWord(argv: readonly string[]): string | undefined {
  return argv.flatMap((word, index) => {
    const [, joined] = /^(?:-q*o|--output=)(.+)$/s.exec(word) ?? [];
    if (joined !== undefined) return [joined];
    return /^(-q*o|--output)$/.test(word) ? argv.slice(index + 1, index + 2) : [];
  }).at(-1);
}

function wantsDebug(argv: readonly string[]): boolean {
  return argv.some((word, index) =>
    /^--log-level=(debug|trace)$/.test(word) ||
    (word === "--log-level" && /^(debug|trace)$/.test(argv[index + 1] ?? ""))
  );
}
