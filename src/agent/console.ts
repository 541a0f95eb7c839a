import { open } from "node:fs/promises";
import { watch } from "node:fs";
import { ShimError } from "../errors.ts";
import { errnoOf, toIoError } from "../host/io_error.ts";
import type { AgentContext } from "./agent_context.ts";
import { requireMachine } from "./domains.ts";

const CHUNK_BYTES = 64 * 1024;

/**
 * Gives what the machine's serial console has said so far and, when following, what it says from now on until the
 * signal aborts.
 *
 * @throws {ShimError} MACHINE_NOT_FOUND; IO_ERROR when there is no log yet and it is not followed
 */
export async function readConsole(
  context: AgentContext,
  id: string,
  options: { isFollowed: boolean; signal: AbortSignal; onBytes: (bytes: Uint8Array) => void },
): Promise<void> {
  const machine = await requireMachine(context, id);
  const path = `${machine.directory}/console.log`;
  let offsetBytes = 0;
  const drain = async () => {
    offsetBytes = await readFrom(path, offsetBytes, options.onBytes);
  };
  try {
    await drain();
  } catch (error) {
    if (!options.isFollowed || errnoOf(error) !== "ENOENT") throw noLog(error, { id, path });
  }
  if (options.isFollowed) {
    await followDirectory(machine.directory, { signal: options.signal, onChange: drain });
  }
}

function noLog(error: unknown, { id, path }: { id: string; path: string }): unknown {
  if (errnoOf(error) !== "ENOENT") {
    return toIoError(error, { action: `read the console of machine "${id}"`, path });
  }
  return new ShimError(
    "IO_ERROR",
    `Cannot read the console of machine "${id}": there is no log "${path}", the machine was never started`,
    {
      details: {
        path,
        remedy: `start it with: bootshim start ${id}; or wait for it with: bootshim console ${id} --follow`,
      },
    },
  );
}

/** @returns the offset after the last byte given */
async function readFrom(
  path: string,
  offsetBytes: number,
  onBytes: (bytes: Uint8Array) => void,
): Promise<number> {
  const file = await open(path, "r");
  try {
    // A log that became shorter was begun anew.
    const { size } = await file.stat();
    let at = size < offsetBytes ? 0 : offsetBytes;
    for (;;) {
      const { bytesRead, buffer } = await file.read(new Uint8Array(CHUNK_BYTES), 0, CHUNK_BYTES, at);
      if (bytesRead === 0) return at;
      onBytes(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** Calls `onChange` after each change inside a directory, one call at a time, until the signal aborts. */
async function followDirectory(
  directory: string,
  { signal, onChange }: { signal: AbortSignal; onChange: () => Promise<void> },
): Promise<void> {
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  let isBusy = false;
  let isChanged = true;
  const drain = async () => {
    isChanged = true;
    if (isBusy) return;
    isBusy = true;
    while (isChanged) {
      isChanged = false;
      // The file comes with the first start.
      await onChange().catch((error: unknown) => errnoOf(error) === "ENOENT" ? undefined : reject(error));
    }
    isBusy = false;
  };
  const watcher = watch(directory, () => void drain());
  watcher.on("error", reject);
  signal.addEventListener("abort", () => resolve(), { once: true });
  if (signal.aborted) resolve();
  try {
    await drain();
    await ended;
  } finally {
    watcher.close();
  }
}
