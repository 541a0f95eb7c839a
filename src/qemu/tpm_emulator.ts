import { lstat, mkdir } from "node:fs/promises";
import { setTimeout as wait } from "node:timers/promises";
import { toIoError } from "../host/io_error.ts";
import { requireSuccess } from "./capture_program.ts";
import { superviseProgram } from "./host_program.ts";

export type TpmEmulatorOptions = {
  /** Where the TPM keeps its keys; made when missing, this user's alone. Absolute. */
  readonly stateDirectory: string;
  /** Where QEMU finds it. Absolute. */
  readonly socketPath: string;
  readonly signal?: AbortSignal | undefined;
};

const POLL_MS = 10;

/**
 * Runs `body` while a TPM 2.0 listens, and ends it whatever happens. It serves one guest, once.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE without swtpm; QEMU_FAILED when it ends before it listens; what `body` throws
 */
export async function withTpmEmulator<T>(options: TpmEmulatorOptions, body: () => Promise<T>): Promise<T> {
  const { stateDirectory, socketPath, signal } = options;
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw toIoError(error, { action: "make the TPM's directory", path: stateDirectory });
  });
  const stop = new AbortController();
  const running = superviseProgram(tpmEmulatorCommand(options), {
    onStdout: () => {},
    signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
  });
  try {
    await Promise.race([
      listening(socketPath, stop.signal),
      running.then((exit) => requireSuccess(exit, { action: 'run "swtpm"', timeoutMs: undefined })),
    ]);
    return await body();
  } finally {
    stop.abort();
    // How it ended after that is of no interest.
    await running.catch(() => {});
  }
}

/** The command that a user starts before a QEMU command with a TPM. */
export function tpmEmulatorCommand(
  { stateDirectory, socketPath }: Pick<TpmEmulatorOptions, "stateDirectory" | "socketPath">,
): string[] {
  return [
    "swtpm",
    "socket",
    "--tpm2",
    ...["--tpmstate", `dir=${stateDirectory},mode=0600`],
    ...["--ctrl", `type=unixio,path=${socketPath},mode=0600`],
    // It ends with its guest.
    "--terminate",
  ];
}

async function listening(path: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const status = await lstat(path).catch(() => undefined);
    if (status?.isSocket() || signal.aborted) return;
    await wait(POLL_MS);
  }
}
