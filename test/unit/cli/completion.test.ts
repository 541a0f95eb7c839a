import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { loadCommands } from "../../../src/cli/command_groups.ts";
import { completeWords } from "../../../src/cli/completion/complete_words.ts";
import { ARGUMENT_VALUES, OPTION_VALUES } from "../../../src/cli/completion/option_values.ts";
import { addGlobalOptions } from "../../../src/cli/global_options.ts";
import { fakeTerminal } from "../../support/fake_terminal.ts";
import { runTestProgram } from "../../support/test_program.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

async function allCommands(): Promise<Command> {
  const program = new Command("bootshim");
  addGlobalOptions(program, { isProgram: true });
  for (const register of await loadCommands([])) {
    register(program, {
      terminal: fakeTerminal(),
      environment: { isRoot: false, homeDirectory: "/", variables: {}, workingDirectory: "/", processId: 1 },
      signal: new AbortController().signal,
      onHangup: () => {},
      openContext: () => Promise.reject(new Error("nothing is run here")),
    });
  }
  for (const command of program.commands) addGlobalOptions(command, { isProgram: false });
  return program;
}

const HERE = { machine: ["vm-1", "vm-2"], image: ["127.0.0.1:5000/os/demo:1"] };

async function complete(...typed: string[]): Promise<string[]> {
  const { candidates } = await completeWords(
    await allCommands(),
    typed,
    (kind) => Promise.resolve(HERE[kind]),
  );
  return candidates.map(({ word }) => word);
}

async function pathsAt(...typed: string[]): Promise<string> {
  return (await completeWords(await allCommands(), typed, (kind) => Promise.resolve(HERE[kind]))).paths;
}

describe("completeWords", () => {
  it.each([
    [["prep"], ["prepare"]],
    [["un"], ["unpin", "undefine"]],
    [["-q", "--root", "images", "xm"], ["xml"]],
    [["no-such", "x"], []],
    [["start", ""], ["vm-1", "vm-2"]],
    [["start", "vm-1", ""], []],
    [["prepare", "127"], ["127.0.0.1:5000/os/demo:1"]],
    [["export", "127.0.0.1:5000/os/demo:1", ""], ["127.0.0.1:5000/os/demo:1"]],
    [["xml", ""], ["vm-1", "vm-2", "127.0.0.1:5000/os/demo:1"]],
    [["machine", ""], ["show"]],
    [["machine", "show", "vm-2"], ["vm-2"]],
    [["prepare", "x", "--boot", ""], ["auto", "disk", "kernel", "uki", "iso"]],
    [["prepare", "--boot=k"], ["--boot=kernel"]],
    [["prepare", "--nonsense=k"], []],
    [["-o", ""], ["text", "json"]],
    [["images", "--log-format", "j"], ["json"]],
    [["prepare", "--disk-"], ["--disk-size", "--disk-format"]],
    [["prepare", "--tpm", "--tp"], []],
    [["prepare", "--append", "a", "--app"], ["--append"]],
    [["prepare", "--append", ""], []],
    [["rm", "--", "--ro"], []],
    [["build", "--config", ""], []],
    [["completion", ""], ["bash", "zsh", "fish"]],
  ])("%j may go on with %j", async (typed, expected) => {
    expect(await complete(...typed)).toEqual(expected);
  });

  it("leaves paths to the shell where a path is wanted", async () => {
    expect(await pathsAt("prepare", "--ignition", "")).toBe("files");
    expect(await pathsAt("--config", "/etc")).toBe("files");
    expect(await pathsAt("images", "--root=/v")).toBe("directories");
    expect(await pathsAt("images", "")).toBe("none");
  });

  it("asks with the options typed so far", async () => {
    const asked: unknown[] = [];
    await completeWords(
      await allCommands(),
      ["--root", "/r", "start", "--socket=/s", ""],
      (kind, options) => {
        asked.push(kind, Object.fromEntries(options));
        return Promise.resolve([]);
      },
    );
    expect(asked).toEqual(["machine", { "--root": "/r", "--socket": "/s" }]);
  });

  it("knows what every option and every argument takes", async () => {
    const program = await allCommands();
    const options = [program, ...program.commands].flatMap(({ options }) => options);
    const unknownOptions = options.filter(({ required }) => required).map(({ long }) => long)
      .filter((long) => !Object.hasOwn(OPTION_VALUES, long ?? ""));
    const unknownArguments = program.commands.flatMap(({ registeredArguments }) => registeredArguments)
      .map((argument) => argument.name()).filter((name) => !Object.hasOwn(ARGUMENT_VALUES, name));
    expect([unknownOptions, unknownArguments]).toEqual([[], []]);
  });
});

describe("completion", () => {
  const run = (...argv: string[]) => runTestProgram(argv, { directory: temporary() });

  it("is silent where nothing can be looked up, and makes no root", async () => {
    expect(await run("completion", "candidates", "--", "start", "")).toEqual({
      exitCode: 0,
      stdout: ":none\n",
      stderr: "",
    });
    expect(await run("completion", "candidates", "--", "--config", "/nonexistent", "start", ""))
      .toMatchObject({
        exitCode: 0,
        stdout: ":none\n",
      });
    expect(await run("images")).toMatchObject({ exitCode: 0 });
    expect(await run("completion", "candidates", "--", "rm", "")).toMatchObject({ stdout: ":none\n" });
  });

  it("refuses other shells", async () => {
    expect(await run("completion", "tcsh")).toMatchObject({ exitCode: 64, stdout: "" });
    expect(await run("completion", "bash", "x")).toMatchObject({ exitCode: 64, stdout: "" });
  });
});
