import { errnoOf } from "./io_error.ts";
import { loadLibc } from "./libc.ts";

/** lseek(2) on Linux. */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** A part of a file that may hold something else than zeros. */
export type DataExtent = { readonly startByte: number; readonly endByte: number };

/**
 * The first part at or after `offsetBytes` that is no hole; on a file system that knows no holes, all the rest. Moves
 * the descriptor's own offset, which nobody uses here. Rejects with an errno error.
 *
 * @returns undefined when nothing but a hole follows
 */
export async function findData(fd: number, offsetBytes: number): Promise<DataExtent | undefined> {
  const { lseek } = await loadLibc();
  try {
    const startByte = lseek(fd, offsetBytes, SEEK_DATA);
    return { startByte, endByte: lseek(fd, startByte, SEEK_HOLE) };
  } catch (error) {
    if (errnoOf(error) === "ENXIO") return undefined;
    throw error;
  }
}
