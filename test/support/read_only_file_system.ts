import { constants } from "node:fs";
import type { FileSystem } from "../../src/host/file_system.ts";

const WRITES = constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC;

/** The real file system as it would be mounted read-only: what is there can be read, nothing can be changed. */
export function readOnlyFileSystem(real: FileSystem): FileSystem {
  const refuse = (): Promise<never> =>
    Promise.reject(Object.assign(new Error("EROFS: read-only file system"), { code: "EROFS" }));
  return {
    ...real,
    open: async (path, flags, mode) => {
      // Opening a file that is not there says so first, unless it was to be made.
      if ((flags & WRITES) !== 0) return await refuse();
      const file = await real.open(path, flags, mode);
      return { ...file, write: refuse, truncate: refuse, chmod: refuse, chown: refuse, touch: refuse };
    },
    // As Linux does it: what is there already is found before the mount is asked.
    mkdir: (path) =>
      real.lstat(path).then(
        () => Promise.reject(Object.assign(new Error("EEXIST"), { code: "EEXIST" })),
        refuse,
      ),
    rmdir: refuse,
    rename: refuse,
    unlink: refuse,
  };
}
