import { execFileSync } from "node:child_process";
import { mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** File systems that tests want to meet; making and mounting them needs root. */
export const MOUNTABLE = ["tmpfs", "xfs", "xfs without reflink", "btrfs", "ext4"] as const;

const MAKE: Readonly<Record<(typeof MOUNTABLE)[number], readonly string[]>> = {
  tmpfs: [],
  xfs: ["mkfs.xfs", "-q", "-m", "reflink=1"],
  "xfs without reflink": ["mkfs.xfs", "-q", "-m", "reflink=0"],
  btrfs: ["mkfs.btrfs", "-q"],
  ext4: ["mkfs.ext4", "-q"],
};

/**
 * Runs `body` with a fresh file system mounted at the directory it is given, and takes it away again.
 *
 * @param directory where the image file and the mount point may be
 */
export async function withMounted<T>(
  kind: (typeof MOUNTABLE)[number],
  { directory, sizeMib }: { readonly directory: string; readonly sizeMib: number },
  body: (mountPoint: string) => Promise<T>,
): Promise<T> {
  const mountPoint = join(directory, "mounted");
  await mkdir(mountPoint);
  const run = (program: string, ...argv: string[]) => execFileSync(program, argv, { stdio: "pipe" });
  const [program, ...argv] = MAKE[kind];
  if (program === undefined) {
    run("mount", "-t", "tmpfs", "-o", `size=${sizeMib}m`, "tmpfs", mountPoint);
  } else {
    const image = join(directory, "file-system");
    await writeFile(image, "");
    await truncate(image, sizeMib * 1024 * 1024);
    run(program, ...argv, image);
    // The loop device goes with the mount.
    run("mount", "-o", "loop", image, mountPoint);
  }
  try {
    return await body(mountPoint);
  } finally {
    run("umount", mountPoint);
  }
}
