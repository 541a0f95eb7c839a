/** Heads of disks, file systems and kernels, written field by field as their specifications say. */
import { crc32 } from "node:zlib";

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

/** Where {@link gptDisk} puts its first partition, and how long each is. */
export const FIRST_PARTITION_SECTOR = 40;
export const PARTITION_SECTORS = 8;

export type GptChanges = {
  readonly bootCode?: string;
  readonly entriesSector?: bigint;
  readonly count?: number;
  readonly entryBytes?: number;
  readonly sectorBytes?: 512 | 4096;
  /** Change the entries, and the header, before their checksums are made. */
  readonly entries?: (view: DataView) => void;
  readonly header?: (view: DataView) => void;
  /** Set last, so that no checksum fits them. */
  readonly damage?: Readonly<Record<number, readonly number[]>>;
  /** Further entries of the MBR. */
  readonly hybrid?: readonly MbrPartition[];
};

/** A GUID partition table with its protective MBR (UEFI 2.10, section 5.3), on a disk of 1 MiB. */
export function gptDisk(typeGuids: readonly string[], changes: GptChanges = {}): Uint8Array {
  const { bootCode = "", entriesSector = 2n, count = 128, entryBytes = 128, sectorBytes = 512 } = changes;
  const disk = mbrDisk([{ type: 0xee, firstSector: 1 }, ...changes.hybrid ?? []], { bootCode });
  const entriesAt = Number(entriesSector) * sectorBytes;
  typeGuids.forEach((guid, i) => {
    const at = entriesAt + i * entryBytes;
    if (at + 48 > disk.length) return;
    disk.set(Buffer.from(guid, "hex"), at);
    const first = FIRST_PARTITION_SECTOR + i * PARTITION_SECTORS;
    const entry = new DataView(disk.buffer, at);
    entry.setBigUint64(32, BigInt(first), true);
    entry.setBigUint64(40, BigInt(first + PARTITION_SECTORS - 1), true);
  });
  changes.entries?.(new DataView(disk.buffer, entriesAt));
  disk.set(Buffer.from("EFI PART", "latin1"), sectorBytes);
  const header = new DataView(disk.buffer, sectorBytes, 92);
  header.setUint32(8, 0x10000, true);
  header.setUint32(12, 92, true);
  header.setBigUint64(24, 1n, true);
  header.setBigUint64(72, entriesSector, true);
  header.setUint32(80, count, true);
  header.setUint32(84, entryBytes, true);
  const entriesBytes = Math.min(count * entryBytes, 1024 * 1024);
  header.setUint32(88, crc32(disk.subarray(entriesAt, entriesAt + entriesBytes)), true);
  changes.header?.(header);
  header.setUint32(16, crc32(disk.subarray(sectorBytes, sectorBytes + 92)), true);
  for (const [offset, bytes] of Object.entries(changes.damage ?? {})) disk.set(bytes, Number(offset));
  return disk;
}

/** The superblock of an ext file system; flags as in its fields s_feature_compat, _incompat and _ro_compat. */
export function extDisk(
  flags: { compat?: number; incompat?: number; roCompat?: number } = {},
  sizeBytes = 1024 * 1024,
): Uint8Array {
  const disk = bytesWith(sizeBytes, { 1080: [0x53, 0xef] });
  const view = new DataView(disk.buffer, 1024);
  view.setUint32(76, 1, true);
  view.setUint32(92, flags.compat ?? 0, true);
  view.setUint32(96, flags.incompat ?? 0, true);
  view.setUint32(100, flags.roCompat ?? 0, true);
  return disk;
}

/** A section of an EFI program; by default each follows the one before, in the file and in memory. */
export type SectionBytes = {
  readonly name: string;
  readonly bytes?: string | Uint8Array;
  readonly fileOffset?: number;
  readonly fileBytes?: number;
  readonly memoryOffset?: number;
  readonly memoryBytes?: number;
};

export type EfiChanges = {
  readonly headerAt?: number;
  readonly sizeBytes?: number;
  readonly sections?: readonly SectionBytes[];
  readonly sectionCount?: number;
  readonly magic?: number;
  readonly subsystem?: number;
};

const OPTIONAL_HEADER_BYTES = 240;

/** An EFI program for a machine; its PE header stands where the field at 0x3c says. */
export function efiProgram(machine: number, changes: EfiChanges = {}): Uint8Array {
  const { headerAt = 0x80, sections = [], magic = 0x20b, subsystem = 10 } = changes;
  const contents = sections.map(({ bytes = "" }) =>
    typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes
  );
  const contentBytes = contents.reduce((sum, { length }) => sum + Math.ceil(length / 512) * 512, 0);
  const tableAt = headerAt + 24 + OPTIONAL_HEADER_BYTES;
  const contentAt = Math.ceil((tableAt + sections.length * 40) / 512) * 512;
  const sizeBytes = changes.sizeBytes ?? Math.max(8192, contentAt + contentBytes);
  const program = bytesWith(Math.max(sizeBytes, contentAt + contentBytes), { 0: "MZ" });
  const view = new DataView(program.buffer);
  view.setUint32(0x3c, headerAt, true);
  program.set(Buffer.from("PE\0\0", "latin1"), headerAt);
  view.setUint16(headerAt + 4, machine, true);
  view.setUint16(headerAt + 6, changes.sectionCount ?? sections.length, true);
  view.setUint16(headerAt + 20, OPTIONAL_HEADER_BYTES, true);
  view.setUint16(headerAt + 24, magic, true);
  view.setUint16(headerAt + 24 + 68, subsystem, true);
  let offset = contentAt;
  sections.forEach((section, i) => {
    const content = contents[i] ?? new Uint8Array();
    const paddedBytes = Math.ceil(content.length / 512) * 512;
    program.set(content, offset);
    program.set(Buffer.from(section.name, "latin1"), tableAt + 40 * i);
    view.setUint32(tableAt + 40 * i + 8, section.memoryBytes ?? content.length, true);
    view.setUint32(tableAt + 40 * i + 12, section.memoryOffset ?? offset, true);
    view.setUint32(tableAt + 40 * i + 16, section.fileBytes ?? paddedBytes, true);
    view.setUint32(tableAt + 40 * i + 20, section.fileOffset ?? offset, true);
    offset += paddedBytes;
  });
  return program.subarray(0, sizeBytes);
}

export type BzImageChanges = {
  readonly protocol?: number;
  readonly loadedBytes?: number;
  readonly version?: string;
  readonly versionAt?: number;
  readonly commandLineLimitBytes?: number;
  readonly is64Bit?: boolean;
};

/** An x86 kernel of one setup sector and a version string; Linux's own is an EFI program too. */
export function bzImage(changes: BzImageChanges = {}): Uint8Array {
  const { protocol = 0x20f, version = "6.1.0-test (builder@host) #1 SMP", versionAt = 0x300 } = changes;
  const kernel = efiProgram(0x8664, { headerAt: 0x400 });
  const view = new DataView(kernel.buffer);
  kernel.set([1], 0x1f1);
  view.setUint32(0x1f4, (changes.loadedBytes ?? kernel.length - 1024) / 16, true);
  kernel.set([0x55, 0xaa], 0x1fe);
  kernel.set(Buffer.from("HdrS", "latin1"), 0x202);
  view.setUint16(0x206, protocol, true);
  view.setUint16(0x20e, versionAt - 0x200, true);
  view.setUint16(0x236, changes.is64Bit ?? true ? 1 : 0, true);
  view.setUint32(0x238, changes.commandLineLimitBytes ?? 2047, true);
  kernel.set(Buffer.from(version, "latin1"), versionAt);
  return kernel;
}

export type Arm64Changes = {
  readonly textOffset?: bigint;
  readonly imageBytes?: bigint;
  readonly flags?: bigint;
};

/** The header of an arm64 kernel; Linux's own is an EFI program too. */
export function arm64Image(changes: Arm64Changes = {}): Uint8Array {
  const kernel = efiProgram(0xaa64);
  const view = new DataView(kernel.buffer);
  view.setBigUint64(8, changes.textOffset ?? 0n, true);
  view.setBigUint64(16, changes.imageBytes ?? 65536n, true);
  view.setBigUint64(24, changes.flags ?? 0xan, true);
  kernel.set(Buffer.from("ARM\x64", "latin1"), 56);
  return kernel;
}
