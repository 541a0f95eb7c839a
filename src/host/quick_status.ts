import type { Footprint, SmallStatus } from "./file_system.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
/** STATX_TYPE, STATX_MODE, STATX_UID, STATX_SIZE. */
const SMALL_STATUS = 0x1 | 0x2 | 0x8 | 0x200;
/** STATX_TYPE, STATX_MTIME, STATX_BLOCKS. */
const FOOTPRINT = 0x1 | 0x40 | 0x400;
/** Of `struct statx`, the same on every architecture. */
const BUFFER_BYTES = 256;
const [MASK_OFFSET, UID_OFFSET, MODE_OFFSET, SIZE_OFFSET, BLOCKS_OFFSET] = [0, 20, 28, 40, 48];
/** Of the last write: seconds, then the nanoseconds beside them. */
const [MODIFIED_OFFSET, MODIFIED_NS_OFFSET] = [112, 120];
const BLOCK_BYTES = 512;
const [S_IFMT, S_IFREG, S_IFDIR, S_IFLNK] = [0o170000, 0o100000, 0o040000, 0o120000];
/** From so many on, loading koffi (20 ms) is worth it: the runtime takes 10 µs for a status, and leaves much garbage. */
const WORTH_LOADING = 2000;

type Statx = (directory: number, path: string, flags: number, mask: number, buffer: Uint8Array) => unknown;
let asked = 0;
let statx: Statx | undefined;
const buffer = new Uint8Array(BUFFER_BYTES);
const view = new DataView(buffer.buffer);

/**
 * What an open file is, within a microsecond, for who asks by the thousand. Not counted as a call into C is: it is in
 * memory, as the runtime's own is, and looking at the clock would take longer.
 *
 * @returns undefined where the runtime is to be asked: the first times, and where libc has no statx(2)
 * @see https://man7.org/linux/man-pages/man2/statx.2.html for the structure
 */
export function quickStatus(fd: number): SmallStatus | undefined {
  if (!ask(fd, "", AT_EMPTY_PATH, SMALL_STATUS)) return undefined;
  return {
    kind: kindAsked(),
    sizeBytes: Number(view.getBigUint64(SIZE_OFFSET, true)),
    mode: view.getUint16(MODE_OFFSET, true) & 0o7777,
    ownerId: view.getUint32(UID_OFFSET, true),
  };
}

/**
 * What a path takes on disk, in a third of the time the runtime takes. A link is not followed.
 *
 * @returns undefined as above, and where there is nothing to be told: the runtime then tells why
 */
export function quickFootprint(path: string): Footprint | undefined {
  if (!ask(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, FOOTPRINT)) return undefined;
  return {
    kind: kindAsked(),
    modifiedMs: Number(view.getBigInt64(MODIFIED_OFFSET, true)) * 1000 +
      view.getUint32(MODIFIED_NS_OFFSET, true) / 1e6,
    allocatedBytes: Number(view.getBigUint64(BLOCKS_OFFSET, true)) * BLOCK_BYTES,
  };
}

/** Whether all that was wanted is in the buffer now. */
function ask(directory: number, path: string, flags: number, mask: number): boolean {
  asked += 1;
  if (asked === WORTH_LOADING) void load();
  return statx?.(directory, path, flags, mask, buffer) === 0 &&
    (view.getUint32(MASK_OFFSET, true) & mask) === mask;
}

function kindAsked(): SmallStatus["kind"] {
  const type = view.getUint16(MODE_OFFSET, true) & S_IFMT;
  return type === S_IFREG ? "file" : type === S_IFDIR ? "directory" : type === S_IFLNK ? "symlink" : "other";
}

async function load(): Promise<void> {
  try {
    const { default: koffi } = await import("koffi");
    // int statx(int dirfd, const char *pathname, int flags, unsigned int mask, struct statx *buf): fills the buffer during
    // the call, nothing to free.
    statx = koffi.load(null).func(
      "int statx(int dirfd, const char *pathname, int flags, unsigned int mask, void *buf)",
    );
  } catch {
    // No libc with it, or no koffi: the runtime goes on being asked.
  }
}
