import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";

/** What a single process may take at most. */
const TIMEOUT_MS = 240_000;
/** The peak never falls while a process lives, so the last look is at most this old. */
const LOOK_INTERVAL_MS = 20;

/** A tool is not installed, or the host cannot do something: the part is left out, and says why. */
export class Unavailable extends Error {}

export type Command = {
  readonly argv: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
};

export type Finished = { readonly seconds: number; readonly peakMib: number; readonly stdout: string };

/**
 * Runs a program from its start to its end.
 *
 * @throws {Unavailable} when there is no such program
 * @throws {Error} when it fails, with the end of what it said
 */
export async function runToEnd({ argv, environment = {} }: Command): Promise<Finished> {
  const [program = "", ...args] = argv;
  const startedMs = performance.now();
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
  let peakMib = 0;
  const look = setInterval(() => peakMib = Math.max(peakMib, peakMibOf(child.pid)), LOOK_INTERVAL_MS);
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => said[name] += text);
  }
  try {
    const code = await ended(child, program);
    const seconds = (performance.now() - startedMs) / 1000;
    if (code === 0) return { seconds, peakMib, stdout: said.stdout };
    throw new Error(`${argv.join(" ").slice(0, 300)} ended with ${code}: ${said.stderr.slice(-1000)}`);
  } finally {
    clearTimeout(timer);
    clearInterval(look);
  }
}

/**
 * Seconds from a program's start to the first text on its stdout that matches. The program is ended then.
 *
 * @throws {Error} when it ends before
 */
export async function runToText({ argv, environment = {} }: Command, pattern: RegExp): Promise<number> {
  const [program = "", ...args] = argv;
  const startedMs = performance.now();
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, ...environment },
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
  let said = "";
  let seconds: number | undefined;
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    said += text;
    if (seconds !== undefined || !pattern.test(said)) return;
    seconds = (performance.now() - startedMs) / 1000;
    child.kill("SIGTERM");
  });
  try {
    const code = await ended(child, program);
    if (seconds !== undefined) return seconds;
    throw new Error(`${program} ended with ${code} before it said ${pattern}: ${said.slice(-500)}`);
  } finally {
    clearTimeout(timer);
  }
}

async function ended(child: ChildProcess, program: string): Promise<unknown> {
  try {
    const [code] = await once(child, "close");
    return code;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      throw new Unavailable(`${program} is not installed`);
    }
    throw error;
  }
}

/** What the kernel remembers of the process; 0 when that is over. */
function peakMibOf(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/^VmHWM:\s+([0-9]+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

/**
 * One after the other, again and again, so that whatever else the machine does strikes all alike. Each round begins with
 * another one, and every second one goes backwards, so that nobody always comes after the same one.
 *
 * @param before runs before each of them, outside of what is measured
 */
export async function inTurns<Name extends string>(
  subjects: Readonly<Record<Name, () => Promise<number>>>,
  rounds: number,
  before: () => Promise<void> = async () => {},
): Promise<Record<Name, number[]>> {
  const names = Object.keys(subjects) as Name[];
  const values = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, number[]>;
  for (let round = 0; round < rounds; round++) {
    const first = round % names.length;
    const order = [...names.slice(first), ...names.slice(0, first)];
    if (round % 2 === 1) order.reverse();
    for (const name of order) {
      await before();
      values[name].push(await subjects[name]());
    }
  }
  return values;
}
