import { constants } from "node:fs";
import { constants as osConstants } from "node:os";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { ShimError } from "../errors.ts";
import { type FileSystem, nodeFileSystem } from "./file_system.ts";
import { toIoError } from "./io_error.ts";

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * First and longest pause between two tries, milliseconds. Each is drawn at random up to the bound, which
 * doubles.
 */
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 50;

export type LockOptions = {
  /** Any number of `shared` holders, or one `exclusive`. */
  readonly mode: "exclusive" | "shared";
  /** How long to wait for the others; 0 tries once. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly fileSystem?: FileSystem;
};

/**
 * Runs `body` while holding flock(2) on the file at `path`, against other processes and against this one
 * alike.
 *
 * The file is made when missing and never removed: removing it would let two holders lock two files of one
 * name. The descriptor is close-on-exec, and the kernel drops the lock with the last descriptor, so a killed
 * holder leaves none.
 *
 * @throws {ShimError} LOCK_TIMEOUT; CANCELLED when `signal` fires while waiting; NO_SPACE, BUSY, IO_ERROR.
 *   What `body` throws passes unchanged.
 */
export async function withLock<T>(path: string, options: LockOptions, body: () => Promise<T>): Promise<T> {
  const fileSystem = options.fileSystem ?? nodeFileSystem;
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  const failed = (error: unknown) => toIoError(error, { action: "lock", path });
  const file = await fileSystem.open(path, flags, 0o600).catch((error: unknown) => {
    throw failed(error);
  });
  try {
    await acquire(path, file.fd, options);
    return await body();
  } finally {
    // Nothing was written through this descriptor, so its close has no news; the lock is gone in any case.
    await file.close().catch(() => {});
  }
}

async function acquire(path: string, fd: number, options: LockOptions): Promise<void> {
  const flock = await loadFlock();
  const operation = (options.mode === "exclusive" ? LOCK_EX : LOCK_SH) | LOCK_NB;
  const startMs = performance.now();
  // Asking again is the only way that can be given up: a blocking flock(2) would hold its thread until the
  // lock came.
  for (let boundMs = FIRST_PAUSE_MS;; boundMs = Math.min(boundMs * 2, LONGEST_PAUSE_MS)) {
    if (options.signal?.aborted) throw cancelled(path, options.signal);
    const errno = flock(fd, operation);
    if (errno === 0) return;
    if (errno !== osConstants.errno.EWOULDBLOCK && errno !== osConstants.errno.EINTR) {
      throw refused(path, errno);
    }
    const leftMs = startMs + options.timeoutMs - performance.now();
    if (leftMs <= 0) throw timedOut(path, options);
    await delay(Math.min(Math.random() * boundMs, leftMs), undefined, { signal: options.signal }).catch(
      (error) => {
        if (options.signal?.aborted) throw cancelled(path, options.signal);
        throw error;
      },
    );
  }
}

function cancelled(path: string, signal: AbortSignal): ShimError {
  return new ShimError("CANCELLED", `Cannot lock "${path}": cancelled while waiting`, {
    cause: signal.reason,
  });
}

function timedOut(path: string, { mode, timeoutMs }: LockOptions): ShimError {
  return new ShimError(
    "LOCK_TIMEOUT",
    `Cannot lock "${path}": still held by others after ${timeoutMs} ms, wanted ${mode}`,
    {
      details: {
        remedy: "try again when the other bootshim is done; `lslocks` shows who holds it",
        path,
        timeoutMs,
      },
    },
  );
}

function refused(path: string, errno: number): unknown {
  const name = Object.entries(osConstants.errno).find(([, value]) => value === errno)?.[0] ?? `E${errno}`;
  return toIoError(Object.assign(new Error(`flock: errno ${errno}`), { code: name }), {
    action: "lock",
    path,
  });
}

/** Returns 0, or the errno. */
type Flock = (fd: number, operation: number) => number;
let loadedFlock: Flock | undefined;

/** Loads koffi at the first lock only: it costs some 20 ms, which most commands need not pay. */
async function loadFlock(): Promise<Flock> {
  if (loadedFlock) return loadedFlock;
  const { default: koffi } = await import("koffi");
  // null: the symbols this executable is already linked with, which is libc whatever its file is called.
  // int flock(int fd, int operation); nothing to free.
  const flock = koffi.load(null).func("int flock(int fd, int operation)");
  loadedFlock = (fd, operation) => flock(fd, operation) === 0 ? 0 : koffi.errno();
  return loadedFlock;
}
