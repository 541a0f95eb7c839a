import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { ensurePrivateDirectory, makeParents, type PrivateDirectoryOptions } from "./private_directory.ts";
import { errnoOf, withIoErrors } from "./io_error.ts";

/** Made before anything else in a root, so a root that holds anything of ours holds it. */
const LOCKS = "locks";
/** What a fresh file system mounted as the root holds. */
const LOST_AND_FOUND = "lost+found";

/**
 * Where lock files lie: kept for ever, because removing one would let two holders lock two files of one name.
 */
export function lockDirectoryOf(root: string): string {
  return join(root, LOCKS);
}

/**
 * Makes or takes the root and its lock directory, and forces their access as {@link ensurePrivateDirectory}
 * does. A directory with other people's files in it is not taken: `--root /` would close the whole host.
 *
 * @param root absolute
 * @param options the root's own access; `locks/` is always private to this user
 * @throws {ShimError} CACHE_LAYOUT_INVALID for an unsafe directory or one that is in other use; NO_SPACE,
 *   BUSY, IO_ERROR
 */
export async function openRootDirectory(root: string, options: PrivateDirectoryOptions): Promise<void> {
  const { fileSystem } = options;
  await makeParents(root, fileSystem);
  const names = await withIoErrors({ action: "open root directory", path: root }, async () => {
    try {
      return await fileSystem.readdir(root);
    } catch (error) {
      // Made next; what is no directory is refused there.
      if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
      throw error;
    }
  });
  if (!names.includes(LOCKS) && names.some((name) => name !== LOST_AND_FOUND)) {
    throw new ShimError(
      "CACHE_LAYOUT_INVALID",
      `Cannot use root directory "${root}": it holds files and is no root of bootshim, must be empty`,
      {
        details: { remedy: "choose another --root", path: root },
      },
    );
  }
  await ensurePrivateDirectory(root, options);
  await ensurePrivateDirectory(lockDirectoryOf(root), { mode: 0o700, groupId: null, fileSystem });
}
