import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

export type ChildScript = {
  readonly stdout: Readable;
  kill(signal: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT"): void;
  /** The exit code once the process is really gone; null for a killed one. */
  readonly exited: Promise<number | null>;
};

/** Starts a script of `test/support` in a process of its own, under the runtime that runs the test. */
export function startScript(name: string, args: readonly string[]): ChildScript {
  const path = fileURLToPath(new URL(name, import.meta.url));
  const runtimeArgs = "deno" in process.versions ? ["run", "--allow-all"] : [];
  const child = spawn(process.execPath, [...runtimeArgs, path, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  // Listened to from the start: under Deno, `signalCode` is set by kill() already, before the process has ended.
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const { pid, stdout } = child;
  if (pid === undefined) throw new Error(`${name} did not start`);
  // Under Deno, a child's own kill() does nothing after its first call.
  return { stdout, kill: (signal) => void process.kill(pid, signal), exited };
}

/**
 * Reads what a child says until a line matches, and gives that line; goes on reading the rest, so that the child never
 * waits for us.
 */
export async function lineOf({ stdout }: ChildScript, pattern: RegExp): Promise<string> {
  return await new Promise((resolve, reject) => {
    const lines = createInterface({ input: stdout });
    const seen: string[] = [];
    lines.on("line", (line) => {
      seen.push(line);
      if (pattern.test(line)) resolve(line);
    });
    lines.on("close", () => reject(new Error(`no line matches ${pattern}: ${seen.slice(-5).join(" | ")}`)));
  });
}
