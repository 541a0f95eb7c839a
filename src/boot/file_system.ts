import type { Fields } from "./byte_window.ts";

/** A file system, or a volume that something else must open first, which begins at the disk's first byte. */
export type BareContent = { readonly kind: "file-system" | "volume"; readonly name: string };

type Signature = { readonly name: string; readonly at: number; readonly characters: string };

/** Each at the place that its on-disk format fixes. ISO 9660 and UDF: ECMA-167, part 2, section 9. */
const FILE_SYSTEMS: readonly Signature[] = [
  { name: "squashfs", at: 0, characters: "hsqs" },
  { name: "xfs", at: 0, characters: "XFSB" },
  { name: "exfat", at: 3, characters: "EXFAT   " },
  { name: "ntfs", at: 3, characters: "NTFS    " },
  { name: "erofs", at: 1024, characters: "\xe2\xe1\xf5\xe0" },
  { name: "f2fs", at: 1024, characters: "\x10\x20\xf5\xf2" },
  { name: "iso9660", at: 32769, characters: "CD001" },
  { name: "udf", at: 32769, characters: "BEA01" },
  { name: "btrfs", at: 65600, characters: "_BHRfS_M" },
];

const VOLUMES: readonly Signature[] = [
  ...[0, 512, 1024, 1536].map((at) => ({ name: "LVM2 volume", at: at + 24, characters: "LVM2 001" })),
  // The last bytes of the first page, of 4, 16 or 64 KiB.
  ...[4096, 16384, 65536].map((end) => ({ name: "swap area", at: end - 10, characters: "SWAPSPACE2" })),
  ...[0, 4096].map((at) => ({ name: "RAID member (md)", at, characters: "\xfc\x4e\x2b\xa9\x01\0\0\0" })),
];

/** What begins at the first byte of a disk without partition table. */
export function recogniseBare(head: Fields): BareContent | undefined {
  const isHere = ({ at, characters }: Signature) => head.has(at, characters);
  const name = FILE_SYSTEMS.find(isHere)?.name ?? extName(head) ?? (isFat(head) ? "vfat" : undefined);
  if (name !== undefined) return { kind: "file-system", name };
  const volume = VOLUMES.find(isHere);
  return volume && { kind: "volume", name: volume.name };
}

const EXT_SUPERBLOCK = 1024;
const HAS_JOURNAL = 0x4;
/** What an ext2 or ext3 driver knows; anything else makes it ext4. */
const EXT3_INCOMPATIBLE = 0x2 | 0x4 | 0x10; // filetype, recover, meta_bg
const EXT3_READ_ONLY_COMPATIBLE = 0x1 | 0x2 | 0x4; // sparse_super, large_file, btree_dir

/** @see https://docs.kernel.org/filesystems/ext4/super.html */
function extName(head: Fields): string | undefined {
  if (!head.has(EXT_SUPERBLOCK + 56, "\x53\xef")) return undefined;
  // The mark is two bytes only: blocks of 64 KiB at most and a known revision go with it.
  if ((head.u32(EXT_SUPERBLOCK + 24) ?? Infinity) > 6 || (head.u32(EXT_SUPERBLOCK + 76) ?? Infinity) > 1) {
    return undefined;
  }
  const hasJournal = ((head.u32(EXT_SUPERBLOCK + 92) ?? 0) & HAS_JOURNAL) !== 0;
  const further = ((head.u32(EXT_SUPERBLOCK + 96) ?? 0) & ~EXT3_INCOMPATIBLE) |
    ((head.u32(EXT_SUPERBLOCK + 100) ?? 0) & ~EXT3_READ_ONLY_COMPATIBLE);
  return further !== 0 ? "ext4" : hasJournal ? "ext3" : "ext2";
}

/** A jump, a sector size, and the name of the kind where boot sectors of FAT12/16 or FAT32 have it. */
function isFat(head: Fields): boolean {
  if (!(head.has(0, "\xeb") || head.has(0, "\xe9")) || !head.has(510, "\x55\xaa")) return false;
  if (![512, 1024, 2048, 4096].includes(head.u16(11) ?? 0)) return false;
  return head.has(82, "FAT32   ") ||
    ["FAT12   ", "FAT16   ", "FAT     "].some((name) => head.has(54, name));
}
