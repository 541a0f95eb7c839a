import { type ErrorCode, ShimError } from "../errors.ts";

/**
 * What stands behind an errno for our callers: the code, the plain words, and what the user can do about it.
 */
type Meaning = { readonly code: ErrorCode; readonly words: string; readonly remedy?: string };

const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOSPC: {
    code: "NO_SPACE",
    words: "no space is left on its file system",
    remedy: "free space or inodes there, or choose another --root",
  },
  EDQUOT: {
    code: "NO_SPACE",
    words: "the disk quota is used up",
    remedy: "raise the quota, or choose another --root",
  },
  EMFILE: {
    code: "BUSY",
    words: "too many files are open in this process",
    remedy: "raise the limit (ulimit -n)",
  },
  ENFILE: { code: "BUSY", words: "too many files are open on this host", remedy: "raise fs.file-max" },
  EACCES: {
    code: "IO_ERROR",
    words: "permission is denied",
    remedy: "run as the user who owns the root directory",
  },
  EPERM: {
    code: "IO_ERROR",
    words: "the operation is not permitted",
    remedy: "run as the user who owns the root directory",
  },
  EROFS: {
    code: "IO_ERROR",
    words: "its file system is read-only",
    remedy: "mount it writable, or choose another --root",
  },
  EIO: {
    code: "IO_ERROR",
    words: "the device reports an error",
    remedy: "look at the kernel log (dmesg) and the disk's health",
  },
  ENOENT: { code: "IO_ERROR", words: "there is nothing by that name" },
  EISDIR: { code: "IO_ERROR", words: "a directory is in the way", remedy: "look what it is, then remove it" },
  ELOOP: { code: "IO_ERROR", words: "it is a symbolic link, which is not followed" },
  ENOTDIR: { code: "IO_ERROR", words: "a part of the path is not a directory" },
  EXDEV: {
    code: "IO_ERROR",
    words: "source and target are on different file systems",
    remedy: "keep the root directory on one",
  },
};

/** The errno's name (`"ENOENT"`) when the error is a file system's or libc's, else undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof ShimError || !("code" in error)) return undefined;
  return typeof error.code === "string" && /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined;
}

/** For `catch`: undefined for what is not there; any other failure passes. */
export function unlessMissing(error: unknown): undefined {
  if (errnoOf(error) !== "ENOENT") throw error;
}

/** Where the trouble was: `action` completes "Cannot …", `path` is the file or directory it is about. */
export type IoContext = { readonly action: string; readonly path: string };

/** A ShimError for an errno; everything else, a ShimError above all, is given back as it came. */
export function toIoError(error: unknown, context: IoContext): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  const { code, words, remedy }: Meaning = MEANINGS[errno] ??
    { code: "IO_ERROR", words: "the operation failed" };
  const { action, path } = context;
  const message = `Cannot ${action}: ${words} (${errno}) at "${path}"`;
  return new ShimError(code, message, {
    cause: error,
    details: { path, errno, ...(remedy ? { remedy } : {}) },
  });
}

/**
 * Runs `body` and translates its errno failures.
 *
 * @throws {ShimError} NO_SPACE (ENOSPC, EDQUOT), BUSY (EMFILE, ENFILE), IO_ERROR (any other errno)
 */
export async function withIoErrors<T>(context: IoContext, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw toIoError(error, context);
  }
}
