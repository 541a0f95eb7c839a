import { dirname } from "node:path";
import { ShimError } from "../errors.ts";
import { type Access, setAccess, syncDirectory } from "./durable.ts";
import { effectiveUserId, type FileSystem, OPEN_DIRECTORY, withOpenFile } from "./file_system.ts";
import { errnoOf, withIoErrors } from "./io_error.ts";

export type PrivateDirectoryOptions = Access & { readonly fileSystem: FileSystem };

/**
 * Makes a directory, or takes an existing one only when nobody else can have put files in it: a real
 * directory, owned by this user, writable by no one else. Its group and bits are then forced, whatever the
 * umask was. Idempotent, and safe against another process that does the same.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID for a link, another kind of file, another owner, or a directory
 *   that group or others can write; NO_SPACE, IO_ERROR
 */
export async function ensurePrivateDirectory(path: string, options: PrivateDirectoryOptions): Promise<void> {
  const { fileSystem } = options;
  await withIoErrors({ action: "make directory", path }, async () => {
    if (await makeDirectory(path, fileSystem)) await syncDirectory(dirname(path), fileSystem);
    try {
      await withOpenFile(path, { flags: OPEN_DIRECTORY, fileSystem }, async (directory) => {
        const { ownerId, groupId, mode } = await directory.status();
        if (ownerId !== effectiveUserId()) {
          refuse(path, `it is owned by user ${ownerId}, must be owned by ${effectiveUserId()}`);
        }
        if ((mode & 0o022) !== 0) {
          refuse(path, `its mode is ${octal(mode)}, must not be writable by group or others`);
        }
        const isExact = mode === options.mode && (options.groupId === null || groupId === options.groupId);
        if (!isExact) await setAccess(directory, options);
      });
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ELOOP" || errno === "ENOTDIR") {
        refuse(path, "it is a link or a file, must be a directory");
      }
      throw error;
    }
  });
}

/** Makes missing parents too, those with the user's own umask: they are the user's, not ours. */
export async function makeParents(path: string, fileSystem: FileSystem): Promise<void> {
  const parent = dirname(path);
  if (parent === path) return;
  await withIoErrors({ action: "make directory", path: parent }, async () => {
    try {
      await fileSystem.lstat(parent);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      await makeParents(parent, fileSystem);
      if (await makeDirectory(parent, fileSystem, 0o755)) await syncDirectory(dirname(parent), fileSystem);
    }
  });
}

/** @returns whether it was this call that made it */
async function makeDirectory(path: string, fileSystem: FileSystem, mode = 0o700): Promise<boolean> {
  try {
    await fileSystem.mkdir(path, mode);
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false;
    throw error;
  }
}

function refuse(path: string, why: string): never {
  throw new ShimError("CACHE_LAYOUT_INVALID", `Cannot use directory "${path}": ${why}`, {
    details: { remedy: "look who made it; then set owner and mode right, or choose another --root", path },
  });
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}
