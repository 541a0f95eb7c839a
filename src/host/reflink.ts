import { errnoOf } from "./io_error.ts";
import { loadLibc } from "./libc.ts";

/** _IOW(0x94, 9, int), the same number on every architecture we run on. @see ioctl_ficlonerange(2) */
const FICLONE = 0x40049409;

/** What a file system answers that cannot share these two files' blocks: none of them means that something is broken. */
const UNSUPPORTED: ReadonlySet<string | undefined> = new Set([
  "EOPNOTSUPP",
  "ENOTSUP",
  "EINVAL",
  "EXDEV",
  "ENOTTY",
  "ENOSYS",
]);

/**
 * Makes the file behind `targetFd` share all blocks of the one behind `sourceFd`; each has its own content from then
 * on. Rejects with an errno error, the target then unchanged.
 */
export async function reflink(sourceFd: number, targetFd: number): Promise<void> {
  const { ioctl } = await loadLibc();
  ioctl(targetFd, FICLONE, sourceFd);
}

/** Whether an error of {@link reflink} says that it cannot be had here, so that another way is to be taken. */
export function isReflinkUnsupported(error: unknown): boolean {
  return UNSUPPORTED.has(errnoOf(error));
}
