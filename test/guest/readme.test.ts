/**
 * Runs README.md: what it shows must happen. Its conventions:
 *
 * - In a block marked `console`, a line that starts with `$ ` is a command; one that ends in ` \` goes on in the next
 *   line. The lines after a command are what it prints, standard error among them, as on a terminal, but for progress.
 * - `…` is any text within a line; alone on a line, any number of lines. Paddings of two blanks or more may differ.
 * - A command ends with 0, or, when it prints `bootshim: CODE: …`, with that code's exit code.
 * - All commands run in their order in one empty folder, each in a shell of its own (bash), with `scripts/` on PATH. A
 *   registry listens on `127.0.0.1:5000`; here it is another port, which is put in its place in commands and output.
 * - A block marked `toml` is a configuration, one marked `toml hosts` a registry's `hosts.toml`, one marked `json` a document. Links and `scripts/…` must lead somewhere.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseHostsFile } from "../../src/config/hosts_file.ts";
import { loadSettings } from "../../src/config/settings.ts";
import { CODES, type ErrorCode } from "../../src/errors.ts";
import {
  codeBlocks,
  type ConsoleStep,
  consoleSteps,
  outputPattern,
  visibleText,
} from "../support/readme_blocks.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));
const README_HOST = "127.0.0.1:5000";
const COMMAND_TIMEOUT_MS = 100_000;

const readme = readFileSync(join(CHECKOUT, "README.md"), "utf8");
const blocks = codeBlocks(readme);
const blocksOf = (language: string) => blocks.filter((block) => block.language === language);

let work: string;
let registry: RegistryServer;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-readme-"));
  await mkdir(join(work, "here"));
  registry = await startRegistryServer();
});

afterAll(async () => {
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

/** Runs a command as a user types it; all that is left of it after the time limit is killed. */
async function runInShell(command: string): Promise<{ exitCode: number | null; output: string }> {
  const shell = spawn("bash", ["-c", `exec 2>&1\n${command}`], {
    cwd: join(work, "here"),
    env: {
      ...process.env,
      PATH: `${join(CHECKOUT, "scripts")}:${process.env["PATH"]}`,
      HOME: work,
      BOOTSHIM_ROOT: join(work, "root"),
      BOOTSHIM_CONFIG: "/dev/null",
    },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  let output = "";
  shell.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
  const timer = setTimeout(() => {
    if (shell.pid !== undefined) process.kill(-shell.pid, "SIGKILL");
  }, COMMAND_TIMEOUT_MS);
  try {
    const [exitCode] = await once(shell, "close");
    return { exitCode: typeof exitCode === "number" ? exitCode : null, output };
  } finally {
    clearTimeout(timer);
  }
}

function expectedExit({ expected }: ConsoleStep): number {
  const code = expected.map((line) => /^bootshim: ([A-Z_]+): /.exec(line)?.[1]).find((each) =>
    each !== undefined
  );
  if (code === undefined) return 0;
  const isCode = (word: string): word is ErrorCode => Object.hasOwn(CODES, word);
  if (!isCode(code)) throw new Error(`README.md: there is no code "${code}"`);
  return CODES[code].exit;
}

describe("README.md", () => {
  it("has examples", () => {
    expect(blocksOf("console").flatMap(consoleSteps).length).toBeGreaterThanOrEqual(10);
    expect(blocksOf("toml").length).toBeGreaterThanOrEqual(1);
  });

  const named = blocksOf("console").map((block) => [block.lineNumber, consoleSteps(block)] as const);
  it.each(named)("line %i: the commands print what it says", async (_lineNumber, steps) => {
    for (const step of steps) {
      const here = (text: string) => text.replaceAll(README_HOST, registry.host);
      const { exitCode, output } = await runInShell(here(step.command));
      const name = `README.md line ${step.lineNumber}: $ ${step.command}`;
      const [expected, actual] = [step.expected.map(here), visibleText(output)];
      // For the sake of a readable difference, where there is one.
      if (!outputPattern(expected).test(actual)) expect(actual, name).toBe(expected.join("\n"));
      expect(exitCode, name).toBe(expectedExit(step));
    }
  }, 4 * COMMAND_TIMEOUT_MS);

  it("shows configurations that are taken, to the last key", async () => {
    for (const { lines } of blocksOf("toml")) {
      const config = join(work, "config.toml");
      await writeFile(config, lines.join("\n"));
      await loadSettings({ config }, {
        isRoot: false,
        homeDirectory: work,
        variables: {},
        workingDirectory: work,
        processId: 1,
      });
    }
  });

  it("shows hosts of registries that are taken", () => {
    expect(blocksOf("toml hosts")).not.toEqual([]);
    for (const { lines } of blocksOf("toml hosts")) {
      parseHostsFile(lines.join("\n"), join(work, "hosts.toml"));
    }
  });

  it("shows JSON that parses", () => {
    for (const { lines, lineNumber } of blocksOf("json")) {
      expect(() => JSON.parse(lines.join("\n")), `README.md line ${lineNumber}`).not.toThrow();
    }
  });

  it("names files that are there", () => {
    const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1] ?? "");
    const scripts = [...readme.matchAll(/(?<![\w/])(?:\.\/)?(scripts\/[\w-]+)/g)].map((match) =>
      match[1] ?? ""
    );
    expect(links.length).toBeGreaterThan(0);
    expect(scripts.length).toBeGreaterThan(0);
    expect([...links, ...scripts].filter((path) => !existsSync(join(CHECKOUT, path)))).toEqual([]);
  });
});
