/**
 * @module qemu: runs QEMU and its tools on this host, for as long as the call lasts.
 *
 * May import `errors.ts`, `image/`, `boot/` and `hypervisor/` types, and `host/`. Invariants: no shell; an environment of
 * three variables; every file's format is spelt out, nothing is probed; no child outlives its call or us.
 */
import { openConsoleLog } from "./console_log.ts";
import { requireSuccess } from "./capture_program.ts";
import { superviseProgram } from "./host_program.ts";
import type { ProgramEnvironment } from "./program_path.ts";

export type RunQemuOptions = {
  /** `inherit`: the guest's console reads our standard input, so QEMU may put that terminal into raw mode. */
  readonly stdin: "inherit" | "ignore";
  /** The guest's console as it comes. QEMU waits while a returned promise is pending and its pipe is full. */
  readonly onConsole?: (bytes: Uint8Array) => void | Promise<void>;
  /** Absolute path of a file that keeps the end of the console's output. */
  readonly consoleLogPath?: string | undefined;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly environment?: ProgramEnvironment | undefined;
};

/**
 * Runs a QEMU command in the foreground until the guest powers off; its serial console has to be on standard output.
 *
 * On abort and timeout QEMU gets SIGTERM, and SIGKILL 5 s later; the promise settles when it is gone. When we ourselves
 * die by SIGKILL the kernel ends QEMU too.
 *
 * @param argv as `renderQemuCommand` gives it: the program's name first
 * @returns what QEMU said on standard error: warnings, as the exit was a success
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when QEMU is not installed
 * @throws {ShimError} QEMU_FAILED when it ended with another status than 0, with its last words
 * @throws {ShimError} HYPERVISOR_TIMEOUT after `timeoutMs`; CANCELLED when `signal` aborted
 * @throws {ShimError} NO_SPACE, IO_ERROR when the console log cannot be written
 */
export async function runQemu(
  argv: readonly string[],
  options: RunQemuOptions,
): Promise<{ stderrTail: string }> {
  const { stdin, onConsole, consoleLogPath, timeoutMs, signal, environment } = options;
  const log = consoleLogPath === undefined ? undefined : await openConsoleLog(consoleLogPath);
  try {
    const exit = await superviseProgram(argv, {
      stdin,
      timeoutMs,
      signal,
      ...(environment ? { environment } : {}),
      onStdout: async (bytes) => {
        await log?.write(bytes);
        await onConsole?.(bytes);
      },
    });
    requireSuccess(exit, { action: `run "${argv[0]}"`, timeoutMs });
    return { stderrTail: exit.stderrTail };
  } finally {
    await log?.close();
  }
}
