import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { writeEmptyFile } from "../machine/disk_file.ts";
import type { DiskPlace } from "./machine_disks.ts";
import type { MachineDisk } from "./prepare_document.ts";

/** An empty disk of a machine's own. */
export type EmptyDiskWish = { readonly sizeBytes: number; readonly serial: string };

const SECTOR_BYTES = 512;
/** vda to vdz, less those of the image and the seed. */
export const MAX_EMPTY_DISKS = 20;
/** What an empty disk may be at most: a mistyped unit is told here, not when the guest writes. */
const MAX_EMPTY_DISK_BYTES = 64 * 2 ** 40;

/**
 * Makes empty raw disks; they take no space until the guest writes.
 *
 * @param role `scratch` for the disk beside a CD, `data` for one that was asked for
 * @throws {ShimError} REQUEST_INVALID, LIMIT_EXCEEDED; NO_SPACE, BUSY, IO_ERROR
 */
export async function makeEmptyDisks(
  role: "scratch" | "data",
  wishes: readonly EmptyDiskWish[],
  { directory, place, fileSystem, folder }: DiskPlace,
): Promise<MachineDisk[]> {
  requireDistinct(wishes);
  const disks: MachineDisk[] = [];
  for (const [index, { sizeBytes, serial }] of wishes.entries()) {
    const name = role === "scratch" ? "scratch.raw" : `data${index + 1}.raw`;
    const virtualSizeBytes = Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
    if (virtualSizeBytes === 0 || virtualSizeBytes > MAX_EMPTY_DISK_BYTES) {
      throw new ShimError(
        "LIMIT_EXCEEDED",
        `Cannot make a disk of ${sizeBytes} bytes: must be from 1 to ${MAX_EMPTY_DISK_BYTES} bytes`,
      );
    }
    await writeEmptyFile(join(directory, name), virtualSizeBytes, { fileSystem, folder });
    disks.push({
      role,
      path: join(place, name),
      format: "raw",
      readOnly: false,
      serial,
      virtualSizeBytes,
      method: "created",
      backing: null,
    });
  }
  return disks;
}

function requireDistinct(wishes: readonly EmptyDiskWish[]): void {
  if (wishes.length > MAX_EMPTY_DISKS) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot make ${wishes.length} data disks: at most ${MAX_EMPTY_DISKS}`,
    );
  }
  const serials = new Set(["machineboot", "cidata", ...wishes.map(({ serial }) => serial)]);
  if (serials.size === wishes.length + 2) return;
  throw new ShimError(
    "REQUEST_INVALID",
    'Cannot make data disks: their serials must differ from each other, and from "machineboot" and "cidata"',
  );
}
