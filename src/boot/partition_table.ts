import { crc32 } from "node:zlib";
import { type ByteWindow, Fields, type Part, readPart } from "./byte_window.ts";
import { hasMbrBootCode } from "./mbr_boot_code.ts";
import { EFI_SYSTEM_PARTITION, gptTypeName, mbrTypeName } from "./partition_types.ts";

/** `type` is a GUID, or of an MBR its byte as "0x83"; `name` is what a well-known type is called. */
export type Partition = {
  readonly number: number;
  readonly type: string;
  readonly name: string | null;
  readonly startBytes: number;
  readonly sizeBytes: number;
};

export type PartitionedDisk = {
  readonly kind: "partitioned";
  readonly table: "gpt" | "mbr";
  /** Those that lie on the disk; logical partitions in an extended one are not looked for. */
  readonly partitions: readonly Partition[];
  readonly hasEfiSystemPartition: boolean;
  /** Whether a BIOS could start something: see `mbr_boot_code.ts`. */
  readonly hasBiosBootCode: boolean;
  /** Whether the MBR before the GPT has partitions of its own. */
  readonly isHybrid: boolean;
  /** Why firmware that reads the GPT would not believe it; null for one that is sound, and for an MBR. */
  readonly problem: string | null;
};

/** A disk without a table. `why` is a predicate; `isUnseen` when the table may lie where the window does not reach. */
export type NoPartitions = { readonly kind: "none"; readonly why: string; readonly isUnseen: boolean };

const SECTOR_BYTES = 512;
const LARGE_SECTOR_BYTES = 4096;
/** 128 entries of 128 bytes are what tools write; the specification knows no limit. */
const MAX_ENTRIES_BYTES = 128 * 1024;
const MBR_TYPE_EFI_SYSTEM = 0xef;
const MBR_TYPE_GPT_PROTECTIVE = 0xee;

/**
 * The partition table of a disk of 512-byte sectors. Reads at most 128 KiB more than the head, for GPT entries that lie
 * elsewhere.
 *
 * @param head the first 64 KiB
 * @see https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html
 */
export async function recognisePartitions(
  file: ByteWindow,
  head: Part,
): Promise<PartitionedDisk | NoPartitions> {
  const { fields } = head;
  const partitions = mbrPartitions(fields, file.sizeBytes);
  const isProtective = partitions.some(({ type }) => type === hexOf(MBR_TYPE_GPT_PROTECTIVE));
  if (isProtective) {
    const isHybrid = partitions.length > 1;
    const finding = { kind: "partitioned", table: "gpt", isHybrid } as const;
    if (fields.has(LARGE_SECTOR_BYTES, "EFI PART") && !fields.has(SECTOR_BYTES, "EFI PART")) {
      const problem = "its GPT is for sectors of 4096 bytes, disks here have sectors of 512 bytes";
      // Boot code of such a disk looks for its next stage in places that are elsewhere here.
      return { ...finding, partitions: [], hasEfiSystemPartition: false, hasBiosBootCode: false, problem };
    }
    if (!fields.has(SECTOR_BYTES, "EFI PART")) return noPartitions("has an MBR for a GPT that is not there");
    const gpt = await readGpt(file, head);
    if (gpt === "unseen") return { kind: "none", why: "has a GPT beyond what was seen", isUnseen: true };
    const hasEfiSystemPartition = gpt.partitions.some(({ type }) => type === EFI_SYSTEM_PARTITION);
    // The first 440 bytes of an MBR are the boot code (UEFI 2.10, section 5.2.1). Which of the GPT's partitions it starts
    // is no matter of the MBR's entries.
    return { ...finding, ...gpt, hasEfiSystemPartition, hasBiosBootCode: !fields.isZero(0, 440) };
  }
  if (partitions.length > 0) {
    const hasEfiSystemPartition = partitions.some(({ type }) => type === hexOf(MBR_TYPE_EFI_SYSTEM));
    const finding = { kind: "partitioned", table: "mbr", isHybrid: false, problem: null } as const;
    return { ...finding, partitions, hasEfiSystemPartition, hasBiosBootCode: hasMbrBootCode(fields) };
  }
  if (fields.has(SECTOR_BYTES, "EFI PART")) return noPartitions("has a GPT without the MBR that protects it");
  return noPartitions("has no partition table");
}

function noPartitions(why: string): NoPartitions {
  return { kind: "none", why, isUnseen: false };
}

function hexOf(type: number): string {
  return `0x${type.toString(16).padStart(2, "0")}`;
}

/** The primary partitions; none when the entries make no sense (a FAT boot sector ends in 55 AA too). */
function mbrPartitions(fields: Fields, diskBytes: number): Partition[] {
  if (!fields.has(510, "\x55\xaa")) return [];
  const partitions: Partition[] = [];
  for (let number = 1; number <= 4; number++) {
    const entry = 446 + 16 * (number - 1);
    const status = fields.u8(entry) ?? 0xff;
    const type = fields.u8(entry + 4) ?? 0;
    const startBytes = (fields.u32(entry + 8) ?? 0) * SECTOR_BYTES;
    const sizeBytes = (fields.u32(entry + 12) ?? 0) * SECTOR_BYTES;
    if (status !== 0x00 && status !== 0x80) return [];
    if (type === 0) continue;
    if (startBytes === 0 || startBytes >= diskBytes) return [];
    partitions.push({ number, type: hexOf(type), name: mbrTypeName(type), startBytes, sizeBytes });
  }
  return partitions;
}

type Gpt = { readonly partitions: readonly Partition[]; readonly problem: string | null };

function broken(problem: string): Gpt {
  return { partitions: [], problem };
}

/** The primary GPT as firmware checks it (UEFI 2.10, section 5.3.2); its backup at the end is not looked at. */
async function readGpt(file: ByteWindow, head: Part): Promise<Gpt | "unseen"> {
  const { fields } = head;
  const headerBytes = fields.u32(SECTOR_BYTES + 12) ?? 0;
  const header = new Fields(fields.slice(SECTOR_BYTES, headerBytes).slice());
  if (headerBytes < 92 || headerBytes > SECTOR_BYTES) {
    return broken("its GPT header has an impossible length");
  }
  if (header.length < headerBytes) return head.isCut ? "unseen" : broken("its GPT header is cut off");
  // The header's checksum is made with zeros in its own place: hence the copy.
  const headerSum = header.u32(16);
  header.slice(16, 4).fill(0);
  if (crc32(header.slice(0, headerBytes)) !== headerSum) {
    return broken("the checksum of its GPT header is wrong");
  }
  if (header.u64(24) !== 1) return broken("its GPT header was made for another place");

  const offsetBytes = (header.u64(72) ?? 0) * SECTOR_BYTES;
  const entryBytes = header.u32(84) ?? 0;
  const entriesBytes = (header.u32(80) ?? 0) * entryBytes;
  // 128 times a power of two.
  if (entryBytes < 128 || entryBytes > LARGE_SECTOR_BYTES || (entryBytes & (entryBytes - 1)) !== 0) {
    return broken(`its GPT entries are of ${entryBytes} bytes`);
  }
  if (entriesBytes === 0 || entriesBytes > MAX_ENTRIES_BYTES) {
    return broken(
      `its GPT has ${entriesBytes / entryBytes} entries, at most ${MAX_ENTRIES_BYTES / entryBytes} are read`,
    );
  }
  const isInHead = offsetBytes + entriesBytes <= fields.length;
  const entries = isInHead
    ? { fields: new Fields(fields.slice(offsetBytes, entriesBytes)), isCut: false }
    : await readPart(file, offsetBytes, entriesBytes);
  if (entries.isCut) return "unseen";
  if (entries.fields.length < entriesBytes) return broken("its GPT entries lie outside the disk");
  if (crc32(entries.fields.slice(0, entriesBytes)) !== header.u32(88)) {
    return broken("the checksum of its GPT entries is wrong");
  }
  return {
    partitions: gptPartitions(entries.fields, { entryBytes, diskBytes: file.sizeBytes }),
    problem: null,
  };
}

function gptPartitions(
  entries: Fields,
  { entryBytes, diskBytes }: { entryBytes: number; diskBytes: number },
): Partition[] {
  const partitions: Partition[] = [];
  for (let at = 0; at < entries.length; at += entryBytes) {
    if (entries.isZero(at, 16)) continue;
    const type = guidText(entries.hex(at, 16));
    const startBytes = (entries.u64(at + 32) ?? 0) * SECTOR_BYTES;
    const endBytes = ((entries.u64(at + 40) ?? 0) + 1) * SECTOR_BYTES;
    if (startBytes === 0 || endBytes <= startBytes || endBytes > diskBytes) continue;
    partitions.push({
      number: at / entryBytes + 1,
      type,
      name: gptTypeName(type),
      startBytes,
      sizeBytes: endBytes - startBytes,
    });
  }
  return partitions;
}

/** A GUID as people write it: its first three fields are little-endian on disk. */
function guidText(hex: string): string {
  const swapped = (from: number, to: number) => hex.slice(from, to).match(/../g)?.reverse().join("") ?? "";
  return [swapped(0, 8), swapped(8, 12), swapped(12, 16), hex.slice(16, 20), hex.slice(20)].join("-")
    .toUpperCase();
}
