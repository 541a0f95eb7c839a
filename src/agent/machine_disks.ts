import { dirname, join } from "node:path";
import { type CloneStep, type CloneWish, planClone, virtualSizeFor } from "../boot/clone_plan.ts";
import type { BootDisk, DiskFormat } from "../boot/prepared_boot.ts";
import { ShimError } from "../errors.ts";
import type { FileSystem } from "../host/file_system.ts";
import { withIoErrors } from "../host/io_error.ts";
import { copyFileSparsely, growFile, reflinkFile, writeOverlayFile } from "../machine/disk_file.ts";
import type { NewFolder } from "../machine/seal_machine.ts";
import { convertImage, growImage } from "../qemu/qemu_img.ts";
import type { MachineDisk } from "./prepare_document.ts";

export type DiskWishes = CloneWish & {
  /** The guest-visible size of the disk it writes; null: the image's. */
  readonly diskSizeBytes: number | null;
};

export type DiskPlace = {
  /** Where the files are made, and where they will be. Both absolute. */
  readonly directory: string;
  readonly place: string;
  readonly fileSystem: FileSystem;
  /** Of the machine; what is written at once is sealed in it. */
  readonly folder?: NewFolder;
  readonly signal?: AbortSignal | undefined;
  /** Something the user should know, but that stops nothing. */
  readonly note: (message: string) => void;
};

/**
 * Makes a machine's disks of an image's, in guest order: the one that the guest writes is its own, the others are the
 * cached layers themselves.
 *
 * @throws {ShimError} REQUEST_INVALID for wishes that contradict each other or the image; LIMIT_EXCEEDED when a disk
 *   would shrink; FORMAT_UNSAFE when the disk's tables turn out to be broken; CANCELLED, NO_SPACE, BUSY, IO_ERROR
 */
export async function makeDisks(
  disks: readonly BootDisk[],
  wishes: DiskWishes,
  place: DiskPlace,
): Promise<MachineDisk[]> {
  requireWritable(disks, wishes);
  const made: MachineDisk[] = [];
  for (const disk of disks) made.push(disk.readOnly ? sharedDisk(disk) : await ownDisk(disk, wishes, place));
  return made;
}

function requireWritable(disks: readonly BootDisk[], wishes: DiskWishes): void {
  if (disks.some((disk) => !disk.readOnly)) return;
  const { diskSizeBytes, clone, diskFormat } = wishes;
  const vain = diskSizeBytes !== null
    ? `of ${diskSizeBytes} bytes`
    : clone !== "auto"
    ? `by ${clone}`
    : diskFormat !== "auto"
    ? `in ${diskFormat}`
    : null;
  if (vain === null) return;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot make a disk ${vain}: the image boots without a writable disk`,
  );
}

/** A disk nobody writes needs no copy: every machine reads the cached layer. */
function sharedDisk({ role, path, format, serial, virtualSizeBytes }: BootDisk): MachineDisk {
  return { role, path, format, readOnly: true, serial, virtualSizeBytes, method: "shared", backing: null };
}

async function ownDisk(disk: BootDisk, wishes: DiskWishes, place: DiskPlace): Promise<MachineDisk> {
  const virtualSizeBytes = virtualSizeFor(wishes.diskSizeBytes, disk.virtualSizeBytes);
  for (const step of planClone(wishes, disk.format)) {
    const name = `disk.${step.format}`;
    if (!await take(step, { disk, virtualSizeBytes, path: join(place.directory, name), ...place })) {
      if (wishes.clone === "reflink") {
        place.note(`the file system of "${place.directory}" shares no blocks with the image: copied`);
      }
      continue;
    }
    const isOverlay = step.how === "overlay";
    return {
      role: disk.role,
      path: join(place.place, name),
      format: step.format,
      readOnly: false,
      serial: disk.serial,
      virtualSizeBytes,
      method: step.how === "convert" ? "copy" : step.how,
      backing: isOverlay ? { path: disk.path, format: disk.format } : null,
    };
  }
  throw new ShimError("INTERNAL", "Cannot make a disk: no step of its plan worked, expected the last one to");
}

type Making = DiskPlace & {
  readonly disk: BootDisk;
  readonly virtualSizeBytes: number;
  readonly path: string;
};

/** @returns false when the file system cannot do it; there is no file then */
async function take(step: CloneStep, making: Making): Promise<boolean> {
  const { disk, virtualSizeBytes, path } = making;
  if (step.how === "overlay") {
    const overlay = { backingPath: disk.path, backingFormat: disk.format, virtualSizeBytes };
    await writeOverlayFile(path, overlay, making);
    return true;
  }
  if (step.how === "reflink") {
    if (!await reflinkFile(disk.path, path, making)) return false;
  } else if (step.how === "copy") {
    await copyFileSparsely(disk.path, path, making);
  } else {
    await convert(step.format, making);
  }
  await grow(step.format, making);
  return true;
}

async function convert(
  targetFormat: DiskFormat,
  { disk, path: targetPath, fileSystem, signal }: Making,
): Promise<void> {
  const { path, format, virtualSizeBytes } = disk;
  const [{ sizeBytes: fileBytes }, availableBytes] = await withIoErrors(
    { action: "convert the image's disk", path },
    () => Promise.all([fileSystem.lstat(path), fileSystem.availableBytes(dirname(targetPath))]),
  );
  const conversion = { path, format, virtualSizeBytes, targetPath, targetFormat, fileBytes, availableBytes };
  await convertImage(conversion, { signal });
}

async function grow(
  format: DiskFormat,
  { disk, virtualSizeBytes, path, fileSystem, signal }: Making,
): Promise<void> {
  if (format === "raw") return await growFile(path, virtualSizeBytes, fileSystem);
  if (virtualSizeBytes > disk.virtualSizeBytes) {
    await growImage(path, { format, virtualSizeBytes, signal });
  }
}
