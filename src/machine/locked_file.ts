import { join } from "node:path";
import { type FileSystem, READ_EXISTING, withOpenFile } from "../host/file_system.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";

/**
 * A regular file in a directory that some running QEMU holds, or null; also where there is no such directory. Follows no
 * link.
 *
 * @throws {ShimError} BUSY, IO_ERROR
 */
export async function findLockedFile(directory: string, fileSystem: FileSystem): Promise<string | null> {
  return await withIoErrors({ action: "look who uses a machine", path: directory }, async () => {
    for (const name of await namesIn(directory, fileSystem)) {
      const path = join(directory, name);
      if ((await fileSystem.lstat(path)).kind !== "file") continue;
      const isLocked = await withOpenFile(
        path,
        { flags: READ_EXISTING, fileSystem },
        (file) => file.isLocked(),
      );
      if (isLocked) return path;
    }
    return null;
  });
}

async function namesIn(directory: string, fileSystem: FileSystem): Promise<string[]> {
  try {
    // A link in the place of the directory is somebody else's business.
    if ((await fileSystem.lstat(directory)).kind !== "directory") return [];
    return await fileSystem.readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
