import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type TerminalEnd = {
  /** The command's own exit code. */
  readonly exitCode: number;
  /** All that the terminal was sent, escape sequences among it. */
  readonly output: string;
  /** The terminal's settings (`stty --save`) before the command and after it. */
  readonly settings: { readonly before: string; readonly after: string };
};

export type PseudoTerminal = {
  /** Presses keys; "\x03" is Ctrl-C. */
  readonly type: (keys: string) => void;
  /** Resolves when the output so far matches; rejects when the command ends before, or after 60 s. */
  readonly shows: (pattern: RegExp) => Promise<void>;
  /** Resolves when the command has ended and the terminal is gone. */
  readonly ended: () => Promise<TerminalEnd>;
  /** Closes the terminal's window: all on it get SIGHUP. */
  readonly close: () => Promise<void>;
};

const TIME_LIMIT_MS = 60_000;
/** The shell stays when the keyboard interrupts what it runs, as an interactive one does. */
const SESSION = 'trap : INT; stty --save > "$FOLDER/before"; bash -c "$COMMAND"; echo $? > "$FOLDER/exit"; ' +
  'stty --save > "$FOLDER/after"';

/**
 * Runs a shell command on a terminal of its own: standard input, output and error are the terminal, the command is in
 * its foreground. Everything on it is killed after 60 s.
 */
export async function openTerminal(
  command: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<PseudoTerminal> {
  const folder = await mkdtemp(join(tmpdir(), "bootshim-terminal-"));
  const { NO_COLOR: _, ...inherited } = process.env;
  const script = spawn("script", ["--quiet", "--return", "--command", SESSION, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: {
      ...inherited,
      ...environment,
      TERM: "xterm",
      SHELL: "/bin/bash",
      FOLDER: folder,
      COMMAND: command,
    },
  });
  let output = "";
  script.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
  // The terminal is gone with the one who made it, and all on it get SIGHUP.
  const timer = setTimeout(() => script.kill("SIGKILL"), TIME_LIMIT_MS);
  const closed = once(script, "close");
  const read = async (name: string) => (await readFile(join(folder, name), "utf8")).trim();
  const untilGone = async () => {
    await closed;
    clearTimeout(timer);
  };
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  return {
    type: (keys) => void script.stdin.write(keys),
    shows: (pattern) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const look = () => {
        if (pattern.test(output)) resolve();
      };
      script.stdout.on("data", look);
      look();
      closed.then(() =>
        reject(new Error(`the terminal did not show ${pattern}, but: ${output.slice(-2000)}`))
      );
      return promise.finally(() => script.stdout.off("data", look));
    },
    ended: async () => {
      try {
        await untilGone();
        return {
          exitCode: Number(await read("exit")),
          output,
          settings: { before: await read("before"), after: await read("after") },
        };
      } finally {
        await removeFolder();
      }
    },
    close: async () => {
      script.kill("SIGKILL");
      await untilGone();
      await removeFolder();
    },
  };
}
