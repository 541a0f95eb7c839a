import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { ReaderGone } from "../../../src/cli/terminal.ts";
import { VERSION } from "../../../src/cli/version.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { fakeTerminal } from "../../support/fake_terminal.ts";
import { runTestProgram } from "../../support/test_program.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const run = (...argv: string[]) => runTestProgram(argv, { directory: temporary() });
const rootExists = () => existsSync(join(temporary(), "root"));

/** What stands in a help under a heading, up to the empty line. */
function section(help: string, heading: string): string[] {
  const lines = help.split("\n");
  const start = lines.indexOf(heading);
  if (start === -1) return [];
  const end = lines.indexOf("", start);
  return lines.slice(start + 1, end === -1 ? undefined : end);
}

async function commandNames(): Promise<string[]> {
  const { stdout } = await run("--help");
  return section(stdout, "Commands:").flatMap((line) => /^ {2}([a-z]+)/.exec(line)?.[1] ?? []);
}

describe("usage errors", () => {
  it.each([
    [[], "no command was given"],
    [["frobnicate"], "unknown command 'frobnicate'"],
    [["--frobnicate", "images"], "unknown option '--frobnicate'"],
    [["images", "--frobnicate"], "unknown option '--frobnicate'"],
    [["images", "extra"], "too many arguments for 'images'. Expected 0 arguments but got 1: extra"],
    [["pull"], "missing required argument 'ref'"],
    [["--root"], "option '--root <dir>' argument missing"],
    [["build", "--tag", "127.0.0.1:1/os/x:1"], "required option '--config <key=value,...>' not specified"],
    [["build", "--config", "arch=amd64,rootfs=/x"], "required option '--tag <name>' not specified"],
  ])("%j: exit 64 and one line", async (argv, why) => {
    expect(await run(...argv)).toEqual({
      exitCode: 64,
      stdout: "",
      stderr: `bootshim: REQUEST_INVALID: Cannot read the command line: ${why} (see: bootshim help)\n`,
    });
    expect(rootExists()).toBe(false);
  });

  it.each([
    [["help", "frobnicate"], 'REQUEST_INVALID: Cannot help with "frobnicate": there is no such command'],
    [["images", "-o", "yaml"], 'REQUEST_INVALID: Cannot run "images": option output: '],
    [["pull", "debian"], 'REFERENCE_INVALID: Cannot read reference "debian": '],
    [["pull", "oci:x:1", "--arch", "riscv64"], 'REQUEST_INVALID: Cannot use architecture "riscv64": '],
    [["inspect", "oci:x:1", "--variant", "cloud"], 'REQUEST_INVALID: Cannot use variant "cloud": '],
    [["prepare", "oci:x:1", "--memory", "1"], 'REQUEST_INVALID: Cannot use --memory "1": '],
    [["prepare", "oci:x:1", "--cpus", "none"], 'REQUEST_INVALID: Cannot use --cpus "none": '],
    [["run", "oci:x:1", "--timeout", "0"], 'REQUEST_INVALID: Cannot run "run": option timeout: '],
    [["run", "oci:x:1", "--timeout", "0.000"], 'REQUEST_INVALID: Cannot run "run": option timeout: '],
    [["run", "oci:x:1", "--timeout", "soon"], 'REQUEST_INVALID: Cannot run "run": option timeout: '],
    [["xml", "vm-1", "--network", ""], 'REQUEST_INVALID: Cannot run "xml": option network: '],
    [["tag", "oci:x:1", "debian"], 'REFERENCE_INVALID: Cannot read reference "debian": '],
    [
      ["build", "--tag", "127.0.0.1:1/os/x:1", "--config", "rootfs=/x"],
      'REQUEST_INVALID: Cannot use --config "rootfs=/x": it has no arch=',
    ],
  ])("%j: exit 64 and one line, before the disk is touched", async (argv, start) => {
    const { exitCode, stdout, stderr } = await run(...argv);
    expect([exitCode, stdout, stderr.slice(0, start.length + "bootshim: ".length)]).toEqual([
      64,
      "",
      `bootshim: ${start}`,
    ]);
    expect(stderr.match(/\n/g)).toHaveLength(1);
    expect(rootExists()).toBe(false);
  });
});

describe("errors under -o json", () => {
  it.each([
    [["-o", "json", "pull", "debian"]],
    [["pull", "-ojson", "debian"]],
    [["pull", "debian", "--output=json"]],
    [["-qo", "json", "pull", "debian"]],
    [["--output", "json", "pull", "debian"]],
  ])("%j gives one JSON document on stderr, nothing on stdout", async (argv) => {
    const { exitCode, stdout, stderr } = await run(...argv);
    expect([exitCode, stdout]).toEqual([64, ""]);
    expect(JSON.parse(stderr)).toEqual({
      error: {
        code: "REFERENCE_INVALID",
        message: 'Cannot read reference "debian": it names no registry host',
        retryable: false,
        details: { remedy: expect.any(String) },
      },
    });
  });

  it("holds for a command line that cannot be read, too", async () => {
    const { exitCode, stderr } = await run("frobnicate", "-o", "json");
    expect([exitCode, JSON.parse(stderr)]).toMatchObject([64, { error: { code: "REQUEST_INVALID" } }]);
  });

  it("carries the exit code of any code, and 70 for what has none", async () => {
    const failing = async (error: unknown) =>
      await runTestProgram(["images", "-o", "json"], {
        directory: temporary(),
        onHangup: () => {},
        openContext: () => Promise.reject(error),
      });
    const known = await failing(new ShimError("REGISTRY_TIMEOUT", "Cannot wait"));
    expect([known.exitCode, JSON.parse(known.stderr)]).toMatchObject([75, {
      error: { code: "REGISTRY_TIMEOUT", retryable: true },
    }]);
    const unknown = await failing(new TypeError("x is not a function"));
    expect([unknown.exitCode, JSON.parse(unknown.stderr)]).toMatchObject([70, {
      error: { code: "INTERNAL", message: "Cannot go on: unexpected failure, x is not a function" },
    }]);
  });
});

describe("--version and version", () => {
  it("print the version of package.json", async () => {
    const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
    expect(JSON.parse(text)).toMatchObject({ name: "bootshim", version: VERSION });
    const expected = { exitCode: 0, stdout: `${VERSION}\n`, stderr: "" };
    expect(await run("--version")).toEqual(expected);
    expect(await run("version")).toEqual(expected);
    expect(JSON.parse((await run("version", "-o", "json")).stdout)).toEqual({ version: VERSION });
  });

  it("answers where the configuration is broken", async () => {
    expect(await run("--config", "/nowhere", "version")).toMatchObject({ exitCode: 0, stderr: "" });
  });
});

describe("help", () => {
  it("is the same by every way, on stdout, with exit code 0", async () => {
    const help = await run("help");
    expect(help).toMatchObject({ exitCode: 0, stderr: "" });
    expect(help.stdout).toMatch(/^Usage: bootshim /);
    expect(section(help.stdout, "Examples:").length).toBeGreaterThan(0);
    for (const word of ["--help", "-h"]) expect(await run(word)).toEqual(help);
  });

  it("of every command exits with 0 and has an example where the command takes a reference", async () => {
    const names = await commandNames();
    expect(names.length).toBeGreaterThan(15);
    for (const name of names) {
      const help = await run("help", name);
      expect(help, name).toMatchObject({ exitCode: 0, stderr: "" });
      expect(help.stdout.startsWith(`Usage: bootshim ${name} `), name).toBe(true);
      expect(await run(name, "--help"), name).toEqual(help);
      const takesReference = /<(ref|src|id\|ref)>|--tag <name>/.test(help.stdout);
      if (takesReference) expect(section(help.stdout, "Examples:").join("\n"), name).toMatch(/\S/);
      for (const example of section(help.stdout, "Examples:")) {
        expect(example, name).toMatch(new RegExp(`^ {2}bootshim ${name} `));
      }
    }
    expect(rootExists()).toBe(false);
  });

  it("has only examples that the command line takes", async () => {
    const examples = [];
    for (const name of await commandNames()) {
      examples.push(...section((await run("help", name)).stdout, "Examples:"));
    }
    await writeFile(join(temporary(), "cmdline.txt"), "quiet\n");
    expect(examples.length).toBeGreaterThan(10);
    for (const example of examples) {
      const argv = (example.split(/ [|>] /)[0] ?? "").trim().split(" ").slice(1);
      // Far enough to have read every word: the context is opened next.
      const opened = new ShimError("BUSY", "Cannot go further: the command line was read");
      const end = await runTestProgram(argv, {
        directory: temporary(),
        onHangup: () => {},
        openContext: () => Promise.reject(opened),
      });
      // What it prints needs no cache.
      const isPlain = argv[0] === "completion";
      expect([example, end.exitCode, end.stderr]).toEqual([
        example,
        isPlain ? 0 : 75,
        isPlain ? "" : expect.stringContaining(opened.message),
      ]);
    }
  });
});

describe("output that nobody reads any more", () => {
  it("ends a command quietly with 141", async () => {
    const terminal = fakeTerminal({
      writeOut: () => {
        throw new ReaderGone();
      },
    });
    for (const argv of [["images"], ["version"], ["help"]]) {
      const { exitCode } = await runTestProgram(argv, { directory: temporary(), terminal });
      expect([argv, exitCode, terminal.written.error]).toEqual([argv, 141, ""]);
    }
  });
});

describe("settings", () => {
  it("go from flags, variables and file to the context", async () => {
    const config = join(temporary(), "config.toml");
    await writeFile(
      config,
      '[registry]\ninsecure = ["h.example:5000"]\n[libvirt]\nconnect = "test:///file"\n',
    );
    const seen: unknown[] = [];
    const end = (argv: string[]) =>
      runTestProgram(argv, {
        directory: temporary(),
        variables: { BOOTSHIM_CONFIG: config },
        onHangup: () => {},
        openContext: (settings) => {
          seen.push(settings);
          return openAgent(settings.rootDirectory);
        },
      });
    expect((await end(["images"])).exitCode).toBe(0);
    expect((await end(["--root", "elsewhere", "images", "--connect", "test:///flag"])).exitCode).toBe(0);
    const file = { registries: { insecureHosts: ["h.example:5000"] } };
    expect(seen).toMatchObject([
      { ...file, rootDirectory: join(temporary(), "root"), libvirtUri: "test:///file" },
      { ...file, rootDirectory: join(temporary(), "elsewhere"), libvirtUri: "test:///flag" },
    ]);
  });

  it("that are wrong end with CONFIG_INVALID and the line", async () => {
    const config = join(temporary(), "config.toml");
    await writeFile(config, "\nrooot = 1\n");
    const { exitCode, stderr } = await run("--config", config, "images");
    expect(exitCode).toBe(78);
    expect(stderr).toMatch(/^bootshim: CONFIG_INVALID: .* line 2: .*rooot.*\n$/);
  });
});

describe("notes", () => {
  const noting = async (...argv: string[]) => {
    const terminal = fakeTerminal();
    await runTestProgram(["images", ...argv], {
      directory: temporary(),
      terminal,
      onHangup: () => {},
      openContext: ({ rootDirectory }, note) => {
        note("something \x1b[31modd");
        return openAgent(rootDirectory);
      },
    });
    return terminal.written.error;
  };

  it("are one line on stderr, as text or as JSON", async () => {
    expect(await noting()).toMatch(/^\S+Z warning something \\u001b\[31modd\n$/);
    expect(JSON.parse(await noting("--log-format", "json"))).toMatchObject({
      level: "WARN",
      message: expect.stringContaining("something"),
    });
  });

  it("are not shown when quiet, with -o json or under a higher level", async () => {
    for (const argv of [["-q"], ["-o", "json"], ["--log-level", "error"]]) {
      expect(await noting(...argv)).toBe("");
    }
    expect(await noting("-o", "json", "--log-level", "info")).not.toBe("");
  });
});
