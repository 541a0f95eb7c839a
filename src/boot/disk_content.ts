import { ShimError } from "../errors.ts";
import { type ByteWindow, Fields } from "./byte_window.ts";

/** What the bytes of a disk layer are. */
export type DiskContent =
  | {
    readonly kind: "partitioned";
    readonly table: "gpt" | "mbr";
    readonly hasEfiSystemPartition: boolean;
    readonly hasBiosBootCode: boolean;
  }
  | { readonly kind: "file-system"; readonly name: string }
  /** A container format: never handed on as raw, because some reader could believe its header. */
  | { readonly kind: "container"; readonly name: string }
  | { readonly kind: "unknown" };

const SECTOR_BYTES = 512;
/** GPT allows more; 128 entries of 128 bytes are what every tool writes, and all that is read. */
const MAX_GPT_ENTRIES = 128;
const GPT_ENTRY_BYTES = 128;

/** C12A7328-F81F-11D2-BA4B-00A0C93EC93B in its on-disk byte order (UEFI 2.10, section 5.3.3). */
const EFI_SYSTEM_PARTITION_GUID = "28732ac11ff8d211ba4b00a0c93ec93b";
const MBR_TYPE_EFI_SYSTEM = 0xef;
const MBR_TYPE_GPT_PROTECTIVE = 0xee;

type Signature = { readonly name: string; readonly offset: number; readonly characters: string };

/** Formats that only look like a disk to whoever reads their header. At the start of the file. */
const CONTAINERS: readonly Signature[] = [
  { name: "qcow2", offset: 0, characters: "QFI\xfb" },
  { name: "qed", offset: 0, characters: "QED\0" },
  { name: "vmdk", offset: 0, characters: "KDMV" },
  { name: "vmdk", offset: 0, characters: "COWD" },
  { name: "vmdk", offset: 0, characters: "# Disk DescriptorFile" },
  { name: "vdi", offset: 64, characters: "\x7f\x10\xda\xbe" },
  { name: "vhdx", offset: 0, characters: "vhdxfile" },
  { name: "vhd", offset: 0, characters: "conectix" },
  { name: "luks", offset: 0, characters: "LUKS\xba\xbe" },
  { name: "parallels", offset: 0, characters: "WithoutFreeSpace" },
  { name: "parallels", offset: 0, characters: "WithouFreSpacExt" },
  { name: "gzip", offset: 0, characters: "\x1f\x8b" },
  { name: "zstd", offset: 0, characters: "\x28\xb5\x2f\xfd" },
  { name: "xz", offset: 0, characters: "\xfd7zXZ\0" },
];

const FILE_SYSTEMS: readonly Signature[] = [
  { name: "squashfs", offset: 0, characters: "hsqs" },
  { name: "xfs", offset: 0, characters: "XFSB" },
  { name: "erofs", offset: 1024, characters: "\xe2\xe1\xf5\xe0" },
  { name: "ext", offset: 1080, characters: "\x53\xef" },
  { name: "iso9660", offset: 32769, characters: "CD001" },
  { name: "btrfs", offset: 65600, characters: "_BHRfS_M" },
];

/** All that is ever read of a disk: enough for the partition table (34 sectors), and for every signature above. */
export const HEAD_BYTES = 65600 + 8;

/** Reads at most 68 KiB of the start and decides what a disk layer is. Never throws on any content. */
export async function recogniseDisk(file: ByteWindow): Promise<DiskContent> {
  const head = new Fields(await file.read(0, HEAD_BYTES));
  const container = CONTAINERS.find((signature) => head.has(signature.offset, signature.characters));
  if (container) return { kind: "container", name: container.name };
  return recognisePartitions(head, file.sizeBytes) ?? recogniseFileSystem(head) ?? { kind: "unknown" };
}

/**
 * The format decision, made once for every reader: a disk layer is raw bytes, or it is refused. A header that some
 * program could believe never reaches one.
 *
 * @throws {ShimError} FORMAT_MISMATCH
 */
export function refuseContainer(content: DiskContent): void {
  if (content.kind !== "container") return;
  throw new ShimError(
    "FORMAT_MISMATCH",
    `Cannot use the rootfs layer as a disk: it is a ${content.name} file, must be a raw disk image`,
    {
      details: {
        format: content.name,
        remedy: "publish the image with a raw disk: qemu-img convert -O raw, or unpack it",
      },
    },
  );
}

function recogniseFileSystem(head: Fields): DiskContent | undefined {
  const found = FILE_SYSTEMS.find((signature) => head.has(signature.offset, signature.characters));
  return found ? { kind: "file-system", name: found.name } : undefined;
}

function recognisePartitions(head: Fields, sizeBytes: number): DiskContent | undefined {
  if (!head.has(510, "\x55\xaa")) return undefined;
  const types = mbrPartitionTypes(head, sizeBytes);
  if (types.length === 0) return undefined;
  // UEFI 2.10, section 5.2: the first 440 bytes of the MBR are the legacy boot code.
  const hasBiosBootCode = !head.isZero(0, 440);
  if (types.includes(MBR_TYPE_GPT_PROTECTIVE)) {
    if (!head.has(SECTOR_BYTES, "EFI PART")) return undefined;
    return {
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: gptHasEfiSystem(head),
      hasBiosBootCode,
    };
  }
  return {
    kind: "partitioned",
    table: "mbr",
    hasEfiSystemPartition: types.includes(MBR_TYPE_EFI_SYSTEM),
    hasBiosBootCode,
  };
}

/** The types of the primary partitions; none when the entries make no sense (a FAT boot sector ends in 55 AA too). */
function mbrPartitionTypes(head: Fields, sizeBytes: number): number[] {
  const types: number[] = [];
  for (let entry = 446; entry < 510; entry += 16) {
    const status = head.u8(entry) ?? 0xff;
    const type = head.u8(entry + 4) ?? 0;
    const firstSector = head.u32(entry + 8) ?? 0;
    if (status !== 0x00 && status !== 0x80) return [];
    if (type === 0) continue;
    if (firstSector === 0 || firstSector * SECTOR_BYTES >= sizeBytes) return [];
    types.push(type);
  }
  return types;
}

function gptHasEfiSystem(head: Fields): boolean {
  const entriesAt = (head.u64(SECTOR_BYTES + 72) ?? 0) * SECTOR_BYTES;
  const count = Math.min(head.u32(SECTOR_BYTES + 80) ?? 0, MAX_GPT_ENTRIES);
  if (head.u32(SECTOR_BYTES + 84) !== GPT_ENTRY_BYTES) return false;
  for (let i = 0; i < count; i++) {
    if (head.hex(entriesAt + i * GPT_ENTRY_BYTES, 16) === EFI_SYSTEM_PARTITION_GUID) return true;
  }
  return false;
}
