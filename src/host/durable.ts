import { randomBytes } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { constants } from "node:fs";
import {
  CREATE_NEW,
  effectiveUserId,
  type FileStatus,
  type FileSystem,
  type Footprint,
  type OpenFile,
  withOpenFile,
} from "./file_system.ts";
import { errnoOf, unlessMissing } from "./io_error.ts";

/**
 * `unsupported`: this file system cannot fsync a directory (some FUSE ones); a power loss may undo the last
 * rename.
 */
export type DirectorySync = "synced" | "unsupported";

const NO_DIRECTORY_SYNC: ReadonlySet<string | undefined> = new Set([
  "EINVAL",
  "ENOSYS",
  "ENOTSUP",
  "EOPNOTSUPP",
]);

/**
 * Makes a directory's entries survive a power loss, where the file system can. Rejects with an errno error.
 */
export async function syncDirectory(path: string, fileSystem: FileSystem): Promise<DirectorySync> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY;
  return await withOpenFile(path, { flags, fileSystem }, async (directory) => {
    try {
      await directory.sync();
      return "synced";
    } catch (error) {
      if (NO_DIRECTORY_SYNC.has(errnoOf(error))) return "unsupported";
      throw error;
    }
  });
}

/**
 * Who may touch a file: exact bits, whatever the umask, and the group that shares it (null: leave the user's
 * own).
 */
export type Access = { readonly mode: number; readonly groupId: number | null };

/** Group before bits: no moment in which the former group has what is meant for the new one. */
export async function setAccess(file: OpenFile, access: Access): Promise<void> {
  if (access.groupId !== null) await file.chown(effectiveUserId(), access.groupId);
  await file.chmod(access.mode);
}

export type WriteDurablyOptions = Access & {
  readonly fileSystem: FileSystem;
  /**
   * A fixed name beside the target, only for callers who hold a lock on it: what a crash left there is
   * replaced, so leftovers never pile up. Default: a random name.
   */
  readonly temporaryPath?: string;
};

/**
 * Replaces a small file. When this resolves, `path` holds `bytes` even after a power loss; when it rejects
 * (with an errno error) or the host dies, `path` is the old file or the new one, never a mixture, and a
 * rejection leaves no temporary file.
 */
export async function writeDurably(
  path: string,
  bytes: Uint8Array,
  options: WriteDurablyOptions,
): Promise<DirectorySync> {
  const { fileSystem } = options;
  const random = join(dirname(path), `.${basename(path)}.${randomBytes(8).toString("hex")}`);
  const temporaryPath = options.temporaryPath ?? random;
  if (options.temporaryPath !== undefined) await unlinkIfThere(temporaryPath, fileSystem);
  try {
    await withOpenFile(temporaryPath, { flags: CREATE_NEW, fileSystem }, async (file) => {
      await file.write(bytes, 0);
      await setAccess(file, options);
      await file.sync();
    });
    await fileSystem.rename(temporaryPath, path);
  } catch (error) {
    // The first failure is the one to tell; where even the removal fails, a random name does no harm.
    await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
    throw error;
  }
  return await syncDirectory(dirname(path), fileSystem);
}

/** @returns whether there was something to remove */
export async function unlinkIfThere(path: string, fileSystem: FileSystem): Promise<boolean> {
  try {
    await fileSystem.unlink(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** The names in a directory; none when it is not there. Rejects with an errno error. */
export async function readdirIfThere(path: string, fileSystem: FileSystem): Promise<string[]> {
  try {
    return await fileSystem.readdir(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** A path's own status, undefined when there is nothing by that name. Rejects with an errno error. */
export async function statusIfThere(path: string, fileSystem: FileSystem): Promise<FileStatus | undefined> {
  return await fileSystem.lstat(path).catch(unlessMissing);
}

/** The same of what it takes on disk. */
export async function footprintIfThere(path: string, fileSystem: FileSystem): Promise<Footprint | undefined> {
  return await fileSystem.footprint(path).catch(unlessMissing);
}
