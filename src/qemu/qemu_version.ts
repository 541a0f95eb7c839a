import { ShimError } from "../errors.ts";
import { captureProgram } from "./capture_program.ts";
import { findProgram, type ProgramEnvironment, STANDARD_ENVIRONMENT } from "./program_path.ts";

export type QemuVersion = {
  readonly major: number;
  readonly minor: number;
  /** With what the distribution adds: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`. */
  readonly text: string;
};

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 64 * 1024;

/**
 * The version of a QEMU program (`qemu-system-x86_64`, `qemu-img`, …), or null when it is not installed.
 *
 * @param binary a bare name or an absolute path
 * @throws {ShimError} QEMU_FAILED when the program does not run, or does not answer as QEMU does; HYPERVISOR_TIMEOUT
 */
export async function readQemuVersion(
  binary: string,
  { environment = STANDARD_ENVIRONMENT, signal }: {
    environment?: ProgramEnvironment;
    signal?: AbortSignal | undefined;
  } = {},
): Promise<QemuVersion | null> {
  if (await findProgram(binary, environment) === null) return null;
  const action = `read the version of "${binary}"`;
  const output = await captureProgram([binary, "--version"], {
    action,
    timeoutMs: TIMEOUT_MS,
    maxOutputBytes: MAX_OUTPUT_BYTES,
    environment,
    signal,
  });
  const match = /^(?:QEMU emulator|[a-z-]+) version ((\d+)\.(\d+)[^\n]*)/.exec(output);
  const [, text, major, minor] = match ?? [];
  if (text === undefined) {
    throw new ShimError(
      "QEMU_FAILED",
      `Cannot ${action}: it answers ${JSON.stringify(output.slice(0, 100))}, expected "… version N.N"`,
    );
  }
  return { major: Number(major), minor: Number(minor), text: text.trim() };
}
