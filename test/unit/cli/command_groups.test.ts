import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { loadCommands } from "../../../src/cli/command_groups.ts";
import type { Composition } from "../../../src/cli/invocation.ts";
import { fakeTerminal } from "../../support/fake_terminal.ts";

const composition: Composition = {
  terminal: fakeTerminal(),
  environment: {
    isRoot: false,
    homeDirectory: "/",
    variables: {},
    workingDirectory: "/",
    processId: 1,
  },
  signal: new AbortController().signal,
  onHangup: () => {},
  openContext: () => Promise.reject(new Error("nothing is run here")),
};

async function commandsFor(argv: readonly string[]): Promise<string[]> {
  const program = new Command();
  for (const register of await loadCommands(argv)) register(program, composition);
  return program.commands.map((command) => command.name());
}

describe("loadCommands", () => {
  it("finds every command by its name, without those of other files", async () => {
    const all = await commandsFor([]);
    expect(all.length).toBeGreaterThan(25);
    for (const name of all) {
      const found = await commandsFor([name, "--log-level", "debug"]);
      expect(found).toContain(name);
      expect(found.length, name).toBeLessThan(all.length);
    }
  });

  it("loads whatever a word may mean: a command may stand behind a flag's value", async () => {
    expect(await commandsFor(["--root", "serve", "doctor"])).toEqual(["doctor", "serve"]);
    expect(await commandsFor(["--quiet", "machines"])).toContain("machine");
  });

  it("loads none for the version", async () => {
    expect(await commandsFor(["version", "-o", "json"])).toEqual([]);
    expect(await commandsFor(["--version"])).toEqual([]);
  });

  it("loads all for the help, and where there is no such command", async () => {
    const all = await commandsFor([]);
    for (const argv of [["help"], ["help", "run"], ["--help"], ["rnu"], ["imges", "prepare"]]) {
      expect(await commandsFor(argv)).toEqual(all);
    }
  });
});
