import { constants } from "node:fs";
import { constants as osConstants } from "node:os";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { ShimError } from "../errors.ts";
import { type FileSystem, nodeFileSystem, type OpenFile } from "./file_system.ts";
import { countForeignCall } from "./foreign_calls.ts";
import { errnoOf, toIoError, unlessMissing } from "./io_error.ts";

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * First and usual longest pause between two tries, milliseconds. Each is drawn at random up to the bound, which
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
  /** That there is no such file yet is known: it is not looked for. */
  readonly isNew?: boolean;
};

export type WaitOptions = LockOptions & {
  /** Longest pause between two tries, milliseconds; default 50. */
  readonly longestPauseMs?: number;
  /** Asked after each vain try; false gives up waiting. What it throws passes. */
  readonly isWorthWaiting?: () => Promise<boolean>;
};

/** A lock that this process holds. Whoever took it releases it. */
export type HeldLock = {
  /** The locked file, open for reading and writing: the holder may leave a word in it. */
  readonly file: OpenFile;
  /** Whether its path still names the locked file; if not, somebody else may hold the lock as well. */
  isCurrent(): Promise<boolean>;
  release(): Promise<void>;
};

/**
 * Runs `body` while holding flock(2) on the file at `path`, against other processes and against this one
 * alike.
 *
 * The file is made when missing and never removed: removing it would let two holders lock two files of one
 * name. Should somebody remove it all the same, the name decides: a lock on a file that `path` no longer names
 * does not count, and is taken anew. The descriptor is close-on-exec, and the kernel drops the lock with the
 * last descriptor, so a killed holder leaves none.
 *
 * @throws {ShimError} LOCK_TIMEOUT; CANCELLED when `signal` fires while waiting; NO_SPACE, BUSY, IO_ERROR.
 *   What `body` throws passes unchanged.
 */
export async function withLock<T>(path: string, options: LockOptions, body: () => Promise<T>): Promise<T> {
  const lock = await takeLock(path, options);
  try {
    return await body();
  } finally {
    await lock.release();
  }
}

/** A lock to be held beyond one function. Throws as {@link withLock} does. */
export async function takeLock(path: string, options: LockOptions): Promise<HeldLock> {
  const lock = await waitForLock(path, options);
  if (!lock) throw timedOut(path, options);
  return lock;
}

/**
 * {@link takeLock} for callers who may lose interest.
 *
 * @returns undefined when `isWorthWaiting` said that it is not
 */
export async function waitForLock(path: string, options: WaitOptions): Promise<HeldLock | undefined> {
  const fileSystem = options.fileSystem ?? nodeFileSystem;
  const startMs = performance.now();
  for (;;) {
    const file = await openLockFile(path, { ...options, fileSystem });
    try {
      if (!await acquire(path, file.fd, { ...options, startMs })) {
        await release(file);
        return undefined;
      }
      const isCurrent = () => isNamed(path, file, fileSystem);
      if (await isCurrent()) return { file, isCurrent, release: () => release(file) };
    } catch (error) {
      await release(file);
      throw toIoError(error, { action: "lock", path });
    }
    await release(file);
  }
}

/** The lock when it is free now, else undefined: a probe whether somebody holds it. Throws as {@link withLock} does. */
export async function tryLock(
  path: string,
  { mode, fileSystem = nodeFileSystem }: Pick<LockOptions, "mode" | "fileSystem">,
): Promise<HeldLock | undefined> {
  const isWorthWaiting = () => Promise.resolve(false);
  return await waitForLock(path, { mode, fileSystem, timeoutMs: 0, isWorthWaiting });
}

async function openLockFile(
  path: string,
  { fileSystem, isNew = false }: Required<Pick<LockOptions, "fileSystem">> & Pick<LockOptions, "isNew">,
): Promise<OpenFile> {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW;
  try {
    if (!isNew) {
      // Nearly always it is there, and what is there is open at once.
      const file = await fileSystem.open(path, flags).catch(unlessMissing);
      if (file) return file;
    }
    return await fileSystem.open(path, flags | constants.O_CREAT, 0o600);
  } catch (error) {
    throw toIoError(error, { action: "lock", path });
  }
}

/** What was written through it is a hint, so its close has no news; the lock is gone in any case. */
async function release(file: OpenFile): Promise<void> {
  await file.close().catch(() => {});
}

async function isNamed(path: string, file: OpenFile, fileSystem: FileSystem): Promise<boolean> {
  const held = await file.status();
  try {
    const named = await fileSystem.lstat(path);
    return named.inode === held.inode && named.device === held.device;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** @returns whether it is held now; not so only when it is not worth waiting for */
async function acquire(
  path: string,
  fd: number,
  options: WaitOptions & { readonly startMs: number },
): Promise<boolean> {
  const { startMs, timeoutMs, signal, longestPauseMs = LONGEST_PAUSE_MS } = options;
  const flock = await loadFlock();
  const operation = (options.mode === "exclusive" ? LOCK_EX : LOCK_SH) | LOCK_NB;
  // Asking again is the only way that can be given up: a blocking flock(2) would hold its thread until the
  // lock came.
  for (let boundMs = FIRST_PAUSE_MS;; boundMs = Math.min(boundMs * 2, longestPauseMs)) {
    if (signal?.aborted) throw cancelled(path, signal);
    const errno = flock(fd, operation);
    if (errno === 0) return true;
    if (errno !== osConstants.errno.EWOULDBLOCK && errno !== osConstants.errno.EINTR) {
      throw refused(path, errno);
    }
    if (options.isWorthWaiting && !await options.isWorthWaiting()) return false;
    const leftMs = startMs + timeoutMs - performance.now();
    if (leftMs <= 0) throw timedOut(path, options);
    await delay(Math.min(Math.random() * boundMs, leftMs), undefined, signal ? { signal } : {}).catch(
      (error) => {
        if (signal?.aborted) throw cancelled(path, signal);
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
  loadedFlock = (fd, operation) => countForeignCall(() => flock(fd, operation) === 0 ? 0 : koffi.errno());
  return loadedFlock;
}
