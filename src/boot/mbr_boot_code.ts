import type { Fields } from "./byte_window.ts";

/** Before the partition table of an MBR (UEFI 2.10, section 5.2.1). */
const CODE_BYTES = 440;
const ENTRIES_AT = 446;
const ENTRY_BYTES = 16;
const ACTIVE = 0x80;

/** `int 0x13`, the BIOS's only way to a disk: code without it loads nothing. */
const DISK_CALL = "\xcd\x13";

/** Code that does nothing but start the active partition, and so nothing where there is none. */
const STARTS_ACTIVE_PARTITION: readonly string[] = [
  // What parted puts on every new label, also of a disk that is for data: its first instructions.
  "\xfa\xb8\x00\x10\x8e\xd0\xbc\x00\xb0\xb8\x00\x00\x8e\xd8\x8e\xc0",
  // syslinux' mbr.bin; its altmbr.bin, which is told the partition's number, has no such text.
  "Multiple active partitions.",
  // The one that comes with DOS and Windows.
  "Invalid partition table",
];

/**
 * Whether a BIOS that starts the boot code of an MBR could come to a system: there is code, and a partition that is marked
 * active or code that needs none (GRUB's, for one).
 */
export function hasMbrBootCode(sector: Fields): boolean {
  if (sector.isZero(0, CODE_BYTES)) return false;
  if (hasActivePartition(sector)) return true;
  return contains(sector, DISK_CALL) && !STARTS_ACTIVE_PARTITION.some((mark) => contains(sector, mark));
}

function hasActivePartition(sector: Fields): boolean {
  return [0, 1, 2, 3].some((place) => {
    const entry = ENTRIES_AT + place * ENTRY_BYTES;
    return sector.u8(entry) === ACTIVE && sector.u8(entry + 4) !== 0;
  });
}

function contains(sector: Fields, characters: string): boolean {
  for (let at = 0; at + characters.length <= CODE_BYTES; at++) if (sector.has(at, characters)) return true;
  return false;
}
