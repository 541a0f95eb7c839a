import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const COMMAND = fileURLToPath(new URL("../../scripts/bootshim", import.meta.url));

export type Ended = { readonly exitCode: number | null; readonly stdout: string; readonly stderr: string };

export type CommandOptions = {
  readonly root: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly cwd?: string;
};

/** Starts the real command as a user would, with a root of its own and no user's configuration. */
export function startBootshim(
  argv: readonly string[],
  { root, environment = {}, cwd }: CommandOptions,
): ChildProcess {
  return spawn(COMMAND, argv, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, BOOTSHIM_ROOT: root, BOOTSHIM_CONFIG: "/dev/null", ...environment },
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** Runs the real command to its end. */
export async function bootshim(argv: readonly string[], options: CommandOptions): Promise<Ended> {
  const child = startBootshim(argv, options);
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => output[name] += text);
  }
  const [exitCode] = await once(child, "close");
  return { exitCode: typeof exitCode === "number" ? exitCode : null, ...output };
}

/** Runs a command that must succeed, and parses what `-o json` printed. */
export async function bootshimJson(argv: readonly string[], options: CommandOptions): Promise<unknown> {
  const ended = await bootshim([...argv, "-o", "json"], options);
  if (ended.exitCode !== 0) {
    throw new Error(`bootshim ${argv.join(" ")} ended with ${ended.exitCode}: ${ended.stderr}`);
  }
  return JSON.parse(ended.stdout);
}
