import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

export type ChildScript = {
  readonly stdout: Readable;
  kill(signal: "SIGKILL"): void;
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
  return { stdout: child.stdout, kill: (signal) => void child.kill(signal), exited };
}
