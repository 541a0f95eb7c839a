import { type ChildProcess, spawn } from "node:child_process";
import { ShimError } from "../errors.ts";
import { errnoOf } from "../host/io_error.ts";
import { type ProgramEnvironment, requireProgram, STANDARD_ENVIRONMENT } from "./program_path.ts";

/** Ceilings that the kernel keeps for one program. */
export type ProgramLimits = {
  readonly addressSpaceBytes: number;
  readonly cpuSeconds: number;
  /** No file may grow beyond this. */
  readonly fileSizeBytes: number;
};

export type ProgramOptions = {
  /** Gets standard output as it comes; the program waits for a returned promise when its pipe is full. */
  readonly onStdout: (bytes: Uint8Array) => void | Promise<void>;
  readonly stdin?: "inherit" | "ignore";
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** How long the program has between SIGTERM and SIGKILL. */
  readonly graceMs?: number;
  readonly limits?: ProgramLimits;
  readonly environment?: ProgramEnvironment;
};

/** How a program ended. `exitCode` is null when a signal killed it. */
export type ProgramExit = {
  readonly exitCode: number | null;
  readonly killedBy: string | null;
  /** The last lines of standard error, without control characters: a guest may have had a say in them. */
  readonly stderrTail: string;
  readonly endedBy: "itself" | "timeout" | "abort";
};

const DEFAULT_GRACE_MS = 5_000;
const STDERR_TAIL_LENGTH = 2_000;
/** The longest wait a timer knows, 24 days; a longer one would ring at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Runs a program without a shell and waits until it is gone: it never outlives this call, an abort, a timeout, or
 * (through the kernel's parent-death signal) our own death by SIGKILL.
 *
 * Judges nothing: a program that failed is described in the result.
 *
 * @param argv the program's name or absolute path, then its arguments
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when the program is not there or cannot be started
 * @throws whatever `onStdout` threw, after the program was ended
 */
export async function superviseProgram(
  argv: readonly string[],
  options: ProgramOptions,
): Promise<ProgramExit> {
  const { signal, timeoutMs, graceMs = DEFAULT_GRACE_MS, environment = STANDARD_ENVIRONMENT } = options;
  if (signal?.aborted) return { exitCode: null, killedBy: null, stderrTail: "", endedBy: "abort" };
  const [program = "", ...rest] = await wrap(argv, { environment, limits: options.limits });
  // Not detached: on a terminal, only the foreground process group may read standard input.
  const child = start(
    argv,
    () =>
      spawn(program, rest, { env: { ...environment }, stdio: [options.stdin ?? "ignore", "pipe", "pipe"] }),
  );

  let endedBy: ProgramExit["endedBy"] = "itself";
  let killTimer: NodeJS.Timeout | undefined;
  const killed = Promise.withResolvers<void>();
  const end = (reason: ProgramExit["endedBy"]) => {
    if (killTimer !== undefined) return;
    endedBy = reason;
    send(child, "SIGTERM");
    killTimer = setTimeout(() => {
      send(child, "SIGKILL");
      killed.resolve();
    }, graceMs);
  };
  const onAbort = () => end("abort");
  const timer = timeoutMs === undefined
    ? undefined
    : setTimeout(() => end("timeout"), Math.min(timeoutMs, MAX_TIMER_MS));
  signal?.addEventListener("abort", onAbort, { once: true });
  // It may have come while the programs were looked up.
  if (signal?.aborted) onAbort();
  try {
    const tail = readTail(child);
    const fed = feed(child, {
      onStdout: options.onStdout,
      killed: killed.promise,
      onFailure: () => end("abort"),
    });
    const [closed, consumed] = await Promise.allSettled([waitForClose(child, argv), fed]);
    if (closed.status === "rejected") throw closed.reason;
    if (consumed.status === "rejected") throw consumed.reason;
    return { ...closed.value, stderrTail: tail(), endedBy };
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Puts the keepers in front; each replaces itself by the next, so that the child we know is the program itself. */
async function wrap(
  argv: readonly string[],
  { environment, limits }: { environment: ProgramEnvironment; limits: ProgramLimits | undefined },
): Promise<string[]> {
  const [name = "", ...rest] = argv;
  const program = await requireProgram(name, environment);
  const keeper = [await requireProgram("setpriv", environment), "--pdeathsig", "KILL", "--"];
  if (limits === undefined) return [...keeper, program, ...rest];
  return [
    ...keeper,
    await requireProgram("prlimit", environment),
    `--as=${limits.addressSpaceBytes}`,
    `--cpu=${limits.cpuSeconds}`,
    `--fsize=${limits.fileSizeBytes}`,
    "--core=0",
    "--",
    program,
    ...rest,
  ];
}

/** Some refusals of the system are thrown (E2BIG), others come as an event (EAGAIN): both mean the same to callers. */
function start(argv: readonly string[], body: () => ChildProcess): ChildProcess {
  try {
    return body();
  } catch (cause) {
    throw cannotStart(argv, cause);
  }
}

function cannotStart(argv: readonly string[], cause: unknown): ShimError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new ShimError("HYPERVISOR_UNAVAILABLE", `Cannot start "${argv[0]}": ${text}`, {
    cause,
    details: { remedy: "look at this user's limits (ulimit -a) and at the program's permissions" },
  });
}

/** Not `child.kill`: Deno's sends one signal only, so SIGKILL could not follow SIGTERM. */
function send(child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): void {
  const isGone = child.exitCode !== null || child.signalCode !== null;
  if (child.pid === undefined || isGone) return;
  try {
    process.kill(child.pid, signal);
  } catch (error) {
    // It ended a moment ago, and nobody has told us yet.
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

function waitForClose(
  child: ChildProcess,
  argv: readonly string[],
): Promise<{ exitCode: number | null; killedBy: string | null }> {
  return new Promise((resolve, reject) => {
    child.once("error", (cause) => reject(cannotStart(argv, cause)));
    child.once("close", (exitCode, killedBy) => resolve({ exitCode, killedBy }));
  });
}

/**
 * Gives the consumer every chunk while it takes them. After its failure, and once the program was killed while the
 * consumer would not come back, the rest is read and thrown away: a pipe that nobody reads would stop the program, and
 * Deno never tells the end of a child whose pipe was closed early.
 */
async function feed(
  child: ChildProcess,
  { onStdout, killed, onFailure }: {
    onStdout: ProgramOptions["onStdout"];
    killed: Promise<void>;
    onFailure: () => void;
  },
): Promise<void> {
  if (child.stdout === null) return;
  const stopsWaiting = killed.then(() => true);
  let isDiscarding = false;
  let failure: { readonly error: unknown } | undefined;
  for await (const chunk of child.stdout) {
    if (isDiscarding) continue;
    try {
      isDiscarding = await Promise.race([onStdout(chunk), stopsWaiting]) === true;
    } catch (error) {
      failure = { error };
      isDiscarding = true;
      onFailure();
    }
  }
  if (failure) throw failure.error;
}

function readTail(child: ChildProcess): () => string {
  let text = "";
  child.stderr?.setEncoding("utf8");
  child.stderr?.on("data", (chunk: string) => {
    text = (text + chunk).slice(-2 * STDERR_TAIL_LENGTH);
  });
  return () => printable(text).trim().slice(-STDERR_TAIL_LENGTH);
}

function printable(text: string): string {
  return text.replace(/(?!\n)\p{Cc}/gu, "");
}
