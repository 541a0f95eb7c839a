/** Heads of disks, file systems and kernels, written field by field as their specifications say. */

const SECTOR_BYTES = 512;

/** Zeros, with some bytes at some places. */
export function bytesWith(
  sizeBytes: number,
  parts: Readonly<Record<number, string | readonly number[]>> = {},
): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  for (const [offset, part] of Object.entries(parts)) {
    bytes.set(typeof part === "string" ? Buffer.from(part, "latin1") : part, Number(offset));
  }
  return bytes;
}

export type MbrPartition = { readonly type: number; readonly firstSector: number; readonly status?: number };

/** A master boot record at the start of a disk. */
export function mbrDisk(
  partitions: readonly MbrPartition[],
  { sizeBytes = 1024 * 1024, bootCode = "" }: { sizeBytes?: number; bootCode?: string } = {},
): Uint8Array {
  const disk = bytesWith(sizeBytes, { 0: bootCode, 510: [0x55, 0xaa] });
  const view = new DataView(disk.buffer);
  partitions.forEach(({ type, firstSector, status = 0 }, i) => {
    const entry = 446 + 16 * i;
    view.setUint8(entry, status);
    view.setUint8(entry + 4, type);
    view.setUint32(entry + 8, firstSector, true);
    view.setUint32(entry + 12, 2048, true);
  });
  return disk;
}

/** EFI system partition and Linux file system, as they stand on a disk. */
export const ESP_GUID = "28732ac11ff8d211ba4b00a0c93ec93b";
export const LINUX_GUID = "af3dc60f838472478e793d69d8477de4";

/** A GUID partition table with its protective MBR (UEFI 2.10, section 5.3). */
export function gptDisk(
  typeGuids: readonly string[],
  changes: { bootCode?: string; entriesSector?: bigint; count?: number; entryBytes?: number } = {},
): Uint8Array {
  const { bootCode = "", entriesSector = 2n, count = 128, entryBytes = 128 } = changes;
  const disk = mbrDisk([{ type: 0xee, firstSector: 1 }], { bootCode });
  const view = new DataView(disk.buffer);
  disk.set(Buffer.from("EFI PART", "latin1"), SECTOR_BYTES);
  view.setBigUint64(SECTOR_BYTES + 72, entriesSector, true);
  view.setUint32(SECTOR_BYTES + 80, count, true);
  view.setUint32(SECTOR_BYTES + 84, entryBytes, true);
  typeGuids.forEach((guid, i) => {
    const entry = Number(entriesSector) * SECTOR_BYTES + i * entryBytes;
    if (entry + 16 <= disk.length) disk.set(Buffer.from(guid, "hex"), entry);
  });
  return disk;
}

/** An EFI program for a machine; its PE header stands where the field at 0x3c says. */
export function efiProgram(
  machine: number,
  { headerAt = 0x80, sizeBytes = 8192 }: { headerAt?: number; sizeBytes?: number } = {},
): Uint8Array {
  const pointer = new Uint8Array(4);
  new DataView(pointer.buffer).setUint32(0, headerAt, true);
  const header = headerAt + 6 <= sizeBytes
    ? { [headerAt]: ["P".charCodeAt(0), "E".charCodeAt(0), 0, 0, machine & 0xff, machine >> 8] }
    : {};
  return bytesWith(sizeBytes, { 0: "MZ", 0x3c: [...pointer], ...header });
}

/** The setup header of an x86 kernel; Linux's own is an EFI program too. */
export function bzImage(): Uint8Array {
  const kernel = efiProgram(0x8664);
  kernel.set([0x55, 0xaa], 0x1fe);
  kernel.set(Buffer.from("HdrS", "latin1"), 0x202);
  return kernel;
}

/** The header of an arm64 kernel; Linux's own is an EFI program too. */
export function arm64Image(): Uint8Array {
  const kernel = efiProgram(0xaa64);
  kernel.set(Buffer.from("ARM\x64", "latin1"), 56);
  return kernel;
}
