import { join } from "node:path";
import type { FileSystem } from "./file_system.ts";
import { errnoOf } from "./io_error.ts";

/**
 * Removes a file, or a directory with what is in it; a link goes, what it points to stays. Nothing there is
 * success.
 *
 * For directories that nobody else can write: a directory swapped for a link between looking and entering
 * would be followed. Rejects with an errno error.
 */
export async function removeTree(path: string, fileSystem: FileSystem): Promise<void> {
  try {
    if ((await fileSystem.lstat(path)).kind !== "directory") return await fileSystem.unlink(path);
    for (const name of await fileSystem.readdir(path)) await removeTree(join(path, name), fileSystem);
    await fileSystem.rmdir(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
