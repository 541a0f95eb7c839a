import { Command } from "commander";
import { describe, expect, it } from "vitest";
import {
  addGlobalOptions,
  addGlobalVariables,
  givenOptions,
  globalOptions,
} from "../../../src/cli/global_options.ts";
import { readOptions } from "../../../src/cli/invocation.ts";
import { refusalOf } from "../../support/failures.ts";

/** Runs `argv` through a program with one plain command and one that has a `--config` of its own. */
async function commandOf(...argv: string[]): Promise<Command> {
  return await commandUnder({}, argv);
}

async function commandUnder(variables: Record<string, string>, argv: readonly string[]): Promise<Command> {
  const program = new Command("program").enablePositionalOptions().exitOverride();
  addGlobalOptions(program, { isProgram: true });
  addGlobalVariables(program, variables);
  let ran: Command | undefined;
  const plain = program.command("plain").option("--own <word>", "its own", "unset");
  const other = program.command("other").option("--config <part>", "its own");
  for (const command of [plain, other]) {
    command.action(() => void (ran = command));
    addGlobalOptions(command, { isProgram: false });
  }
  await program.parseAsync(argv, { from: "user" });
  if (!ran) throw new Error("no command ran");
  return ran;
}

const DEFAULTS = { output: "text", logFormat: "text", quiet: false, progress: true };
const read = async (...argv: string[]) => readOptions(await commandOf(...argv), globalOptions);

describe("global options", () => {
  it("have their defaults", async () => {
    expect(await read("plain")).toEqual(DEFAULTS);
  });

  it.each([
    [["--root", "/r"], { root: "/r" }],
    [["--root=/r"], { root: "/r" }],
    [["--config", "/c"], { config: "/c" }],
    [["--connect", "test:///default"], { connect: "test:///default" }],
    [["-o", "json"], { output: "json" }],
    [["-ojson"], { output: "json" }],
    [["--output", "json"], { output: "json" }],
    [["--log-level", "debug"], { logLevel: "debug" }],
    [["--log-level", "warn"], { logLevel: "warn" }],
    [["--log-format", "json"], { logFormat: "json" }],
    [["-q"], { quiet: true }],
    [["--quiet"], { quiet: true }],
    [["--no-progress"], { progress: false }],
  ])("%j means the same before and after the command's name", async (argv, expected) => {
    expect(await read(...argv, "plain")).toEqual({ ...DEFAULTS, ...expected });
    expect(await read("plain", ...argv)).toEqual({ ...DEFAULTS, ...expected });
  });

  it.each([
    [{ BOOTSHIM_OUTPUT: "json" }, { output: "json" }],
    [{ BOOTSHIM_CONNECT: "test:///default" }, { connect: "test:///default" }],
    [{ BOOTSHIM_LOG_LEVEL: "debug", BOOTSHIM_LOG_FORMAT: "json" }, { logLevel: "debug", logFormat: "json" }],
    [{ BOOTSHIM_QUIET: "1", BOOTSHIM_NO_PROGRESS: "yes" }, { quiet: true, progress: false }],
    [{ BOOTSHIM_QUIET: "0", BOOTSHIM_NO_PROGRESS: "false" }, {}],
    [{ BOOTSHIM_QUIET: "", BOOTSHIM_OUTPUT: "" }, {}],
  ])("%j says the same where the flag is not given", async (variables, expected) => {
    const under = async (...argv: string[]) =>
      readOptions(await commandUnder(variables, argv), globalOptions);
    expect(await under("plain")).toEqual({ ...DEFAULTS, ...expected });
    expect(await under("plain", "-o", "text")).toMatchObject({ output: "text" });
    expect(await under("-o", "text", "plain")).toMatchObject({ output: "text" });
  });

  it.each([{ BOOTSHIM_OUTPUT: "yaml" }, { BOOTSHIM_QUIET: "maybe" }])("refuse %j", async (variables) => {
    const command = await commandUnder(variables, ["plain"]);
    expect(refusalOf(() => readOptions(command, globalOptions))).toMatchObject({ code: "REQUEST_INVALID" });
  });

  it("may be split around the name; the later one wins", async () => {
    expect(await read("-q", "--root", "/a", "-o", "json", "plain", "--root", "/b", "--no-progress")).toEqual({
      root: "/b",
      output: "json",
      logFormat: "text",
      quiet: true,
      progress: false,
    });
  });

  it("are not taken from a command that has one of that name for itself", async () => {
    const command = await commandOf("--config", "/file", "other", "--config", "part");
    expect(command.opts()["config"]).toBe("part");
    expect((await commandOf("--config", "/file", "plain")).parent?.opts()["config"]).toBe("/file");
  });

  it("leave a command's own options alone", async () => {
    expect(givenOptions(await commandOf("plain", "--own", "word"))["own"]).toBe("word");
    expect(givenOptions(await commandOf("-q", "plain"))["own"]).toBe("unset");
  });

  it.each([["-o", "yaml"], ["--log-level", "loud"], ["--log-format", "xml"]])(
    "refuse %s %s",
    async (...argv) => {
      const command = await commandOf("plain", ...argv);
      expect(refusalOf(() => readOptions(command, globalOptions))).toMatchObject({
        code: "REQUEST_INVALID",
        details: { remedy: "see: bootshim plain --help" },
      });
    },
  );
});
