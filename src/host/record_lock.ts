import { loadLibc } from "./libc.ts";

/** fcntl(2) on Linux: locks of an open file, which is how QEMU locks images. */
const F_OFD_GETLK = 36;
const F_WRLCK = 1;
const F_UNLCK = 2;
/** `struct flock` of 64-bit Linux: type and whence of 2 bytes each, start and length of 8, the process of 4. */
const STRUCT_BYTES = 32;

/**
 * Whether any other open file holds a lock, shared or not, on any part of the file behind `fd`. Asks only: takes no lock,
 * so it disturbs nobody. Rejects with an errno error.
 */
export async function isLocked(fd: number): Promise<boolean> {
  const { fcntl } = await loadLibc();
  const lock = new Uint8Array(STRUCT_BYTES);
  const view = new DataView(lock.buffer);
  // From byte 0 to the end of all files; what would be in the way of a write lock is told.
  view.setInt16(0, F_WRLCK, true);
  fcntl(fd, F_OFD_GETLK, lock);
  return view.getInt16(0, true) !== F_UNLCK;
}
