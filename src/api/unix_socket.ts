import { randomBytes } from "node:crypto";
import { chmod, chown, lstat, mkdir, rename, rm, rmdir } from "node:fs/promises";
import type { Server } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { ShimError } from "../errors.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";

export type SocketPlace = {
  /** Absolute. */
  readonly path: string;
  readonly mode: number;
  /** Whose members may connect as far as the mode lets them; null: the process's own group. */
  readonly groupId: number | null;
};

/** Callers that may wait to be let in: hundreds come at once, and the kernel turns further ones away. */
const BACKLOG = 4096;
/** unix(7): what fits into sun_path with its NUL. */
const MAX_PATH_BYTES = 107;

/**
 * Makes a server listen on a unix socket that has its mode and group from the first moment it can be seen: it is bound
 * in a private directory and then renamed. A socket that nobody answers on any more is replaced.
 *
 * @returns removes the socket, unless another has taken its place
 * @throws {ShimError} BUSY when a service answers there; CONFLICT when what is there is no socket; REQUEST_INVALID for a
 *   path too long; NO_SPACE, IO_ERROR
 */
export async function listenOnSocket(server: Server, place: SocketPlace): Promise<() => Promise<void>> {
  const { path, mode, groupId } = place;
  return await withIoErrors({ action: "listen", path }, async () => {
    const made = await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    // Who may connect has to get there; a directory that was there is its owner's business.
    if (made !== undefined && groupId !== null) await chown(dirname(path), -1, groupId);
    await requireFree(path);
    const privateDirectory = join(dirname(path), `.b${randomBytes(4).toString("hex")}`);
    const bound = join(privateDirectory, "s");
    requireShort(bound);
    await mkdir(privateDirectory, { mode: 0o700 });
    try {
      await listen(server, bound);
      if (groupId !== null) await chown(bound, -1, groupId);
      await chmod(bound, mode);
      await rename(bound, path);
    } finally {
      await rm(bound, { force: true });
      await rmdir(privateDirectory);
    }
    const { ino } = await lstat(path);
    return async () => {
      const now = await lstat(path).catch(() => undefined);
      if (now?.ino === ino) await rm(path, { force: true });
    };
  });
}

async function requireFree(path: string): Promise<void> {
  let status;
  try {
    status = await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  if (!status.isSocket()) {
    throw new ShimError("CONFLICT", `Cannot listen on "${path}": what is there is no socket`, {
      details: { path, remedy: "look what it is; move it away, or choose another --socket" },
    });
  }
  if (await answers(path)) {
    throw new ShimError("BUSY", `Cannot listen on "${path}": a service answers there already`, {
      details: { path, remedy: "stop the other one, or choose another --socket" },
    });
  }
}

function requireShort(path: string): void {
  const sizeBytes = new TextEncoder().encode(path).length;
  if (sizeBytes <= MAX_PATH_BYTES) return;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot listen on a socket beside "${path}": ${sizeBytes} bytes, limit is ${MAX_PATH_BYTES}`,
    { details: { remedy: "choose a shorter --socket" } },
  );
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // Refused: its process is dead. Anything else is a socket that we cannot judge, and so leave.
    socket.once("error", (error) => resolve(errnoOf(error) !== "ECONNREFUSED"));
  });
}

/** Resolves when it listens; rejects with the errno error when it cannot. */
export function listen(
  server: Server,
  where: string | { fd: number } | { host: string; port: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const done = () => {
      server.off("error", reject);
      resolve();
    };
    const place = typeof where === "string" ? { path: where } : where;
    server.listen({ ...place, backlog: BACKLOG }, done);
  });
}
