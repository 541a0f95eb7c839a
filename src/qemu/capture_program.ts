import { ShimError } from "../errors.ts";
import { type ProgramExit, type ProgramOptions, superviseProgram } from "./host_program.ts";

/** What the program was to do, for the message: "Cannot {action}: …". */
export type Judgement = { readonly action: string; readonly timeoutMs?: number | undefined };

/**
 * Lets an exit with status 0 pass.
 *
 * @throws {ShimError} CANCELLED when the abort signal ended it, HYPERVISOR_TIMEOUT when its time was over, QEMU_FAILED
 *   for any other status or a signal; the last lines of standard error are in the message and in `details.stderrTail`
 */
export function requireSuccess(exit: ProgramExit, { action, timeoutMs }: Judgement): void {
  const { exitCode, killedBy, stderrTail, endedBy } = exit;
  if (endedBy === "abort") throw new ShimError("CANCELLED", `Cannot ${action}: the request was cancelled`);
  if (endedBy === "timeout") {
    throw new ShimError(
      "HYPERVISOR_TIMEOUT",
      `Cannot ${action}: still running after ${timeoutMs} ms, which was its limit`,
      {
        details: { timeoutMs, stderrTail },
      },
    );
  }
  if (exitCode === 0) return;
  const how = killedBy === null ? `exit code is ${exitCode}` : `it was ended by ${killedBy}`;
  const words = stderrTail === "" ? "it said nothing" : `its last words were ${JSON.stringify(stderrTail)}`;
  throw new ShimError("QEMU_FAILED", `Cannot ${action}: ${how}, expected exit code 0; ${words}`, {
    details: { exitCode, killedBy, stderrTail },
  });
}

export type CaptureOptions = Omit<ProgramOptions, "onStdout" | "stdin" | "timeoutMs"> & Judgement & {
  readonly timeoutMs: number;
  readonly maxOutputBytes: number;
};

/** Runs a program to its end and gives its standard output. Injected where a test wants to see every argv. */
export type ProgramRunner = (argv: readonly string[], options: CaptureOptions) => Promise<string>;

/**
 * Runs a program that has to succeed, and gives what it printed.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE, CANCELLED, HYPERVISOR_TIMEOUT, QEMU_FAILED as above; LIMIT_EXCEEDED when
 *   it prints more than `maxOutputBytes`
 */
export async function captureProgram(argv: readonly string[], options: CaptureOptions): Promise<string> {
  const { action, maxOutputBytes, ...rest } = options;
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  const exit = await superviseProgram(argv, {
    ...rest,
    onStdout: (bytes) => {
      sizeBytes += bytes.length;
      if (sizeBytes > maxOutputBytes) {
        throw new ShimError(
          "LIMIT_EXCEEDED",
          `Cannot ${action}: more than ${maxOutputBytes} bytes of output, which is the limit`,
        );
      }
      chunks.push(bytes);
    },
  });
  requireSuccess(exit, options);
  return Buffer.concat(chunks).toString("utf8");
}
