import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { type DiskContent, recogniseDisk } from "../../../src/boot/disk_content.ts";
import type { Partition, PartitionedDisk } from "../../../src/boot/partition_table.ts";
import {
  ESP_GUID,
  FIRST_PARTITION_SECTOR,
  gptDisk,
  LINUX_GUID,
  mbrDisk,
  PARTITION_SECTORS,
} from "../../support/disk_bytes.ts";

const CODE = "\xfa\x31\xc0"; // cli; xor ax, ax
/** The beginning of GRUB's boot.img, and its call of the disk. */
const GRUB = "\xeb\x63\x90\0\xb4\x42\xcd\x13GRUB ";
/** All of parted's, which it writes on every label that it makes. */
const PARTED = Buffer.from(
  "fab800108ed0bc00b0b800008ed88ec0fbbe007cbf0006b90002f3a4ea21060000bebe073804750b" +
    "83c61081fefe0775f3eb16b402b001bb007cb2808a74018b4c02cd13ea007c0000ebfe",
  "hex",
).toString("latin1");
const MIB = 1024 * 1024;
const ESP = { type: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", name: "EFI system partition" };
const LINUX = { type: "0FC63DAF-8483-4772-8E79-3D69D8477DE4", name: "Linux file system" };
const FOREIGN_GUID = "0123456789abcdef0123456789abcdef";
const FOREIGN = { type: "67452301-AB89-EFCD-0123-456789ABCDEF", name: null };

/** The n-th partition that gptDisk makes. */
function nth(number: number, type: { type: string; name: string | null }): Partition {
  const startBytes = (FIRST_PARTITION_SECTOR + (number - 1) * PARTITION_SECTORS) * 512;
  return { number, ...type, startBytes, sizeBytes: PARTITION_SECTORS * 512 };
}

const gpt = (partitions: readonly Partition[], further: Partial<PartitionedDisk> = {}): PartitionedDisk => ({
  kind: "partitioned",
  table: "gpt",
  partitions,
  hasEfiSystemPartition: partitions.some(({ type }) => type === ESP.type),
  hasBiosBootCode: false,
  isHybrid: false,
  problem: null,
  ...further,
});

const mbr = (
  partitions: readonly (readonly [number: number, type: string, name: string | null, firstSector: number])[],
  further: Partial<PartitionedDisk> = {},
): PartitionedDisk => ({
  kind: "partitioned",
  table: "mbr",
  partitions: partitions.map(([number, type, name, firstSector]) => ({
    number,
    type,
    name,
    startBytes: firstSector * 512,
    sizeBytes: 2048 * 512,
  })),
  hasEfiSystemPartition: false,
  hasBiosBootCode: false,
  isHybrid: false,
  problem: null,
  ...further,
});

const many = Array.from({ length: 127 }, () => LINUX_GUID).concat(ESP_GUID);

async function contentOf(disk: Uint8Array, sizeBytes?: number): Promise<DiskContent> {
  return await recogniseDisk(windowOf(disk, sizeBytes));
}

describe("recogniseDisk on a GPT", () => {
  it.each<[string, Uint8Array, PartitionedDisk]>([
    ["an EFI system partition", gptDisk([ESP_GUID]), gpt([nth(1, ESP)])],
    [
      "one behind others, of which one is of no known type",
      gptDisk([LINUX_GUID, FOREIGN_GUID, ESP_GUID]),
      gpt([nth(1, LINUX), nth(2, FOREIGN), nth(3, ESP)]),
    ],
    [
      "one in the last entry",
      gptDisk(many),
      gpt(many.map((guid, i) => nth(i + 1, guid === ESP_GUID ? ESP : LINUX))),
    ],
    ["none", gptDisk([]), gpt([])],
    [
      "boot code in its MBR",
      gptDisk([LINUX_GUID], { bootCode: CODE }),
      gpt([nth(1, LINUX)], { hasBiosBootCode: true }),
    ],
    ["its entries elsewhere", gptDisk([ESP_GUID], { entriesSector: 40n }), gpt([nth(1, ESP)])],
    ["its entries far behind the head", gptDisk([ESP_GUID], { entriesSector: 1000n }), gpt([nth(1, ESP)])],
    ["fewer entries than it has", gptDisk([LINUX_GUID, ESP_GUID], { count: 1 }), gpt([nth(1, LINUX)])],
    [
      "entries of 512 bytes",
      gptDisk([LINUX_GUID, ESP_GUID], { entryBytes: 512 }),
      gpt([nth(1, LINUX), nth(2, ESP)]),
    ],
    [
      "an MBR that has one of its partitions, too",
      gptDisk([ESP_GUID], { hybrid: [{ type: 0xef, firstSector: FIRST_PARTITION_SECTOR }] }),
      gpt([nth(1, ESP)], { isHybrid: true }),
    ],
    [
      "a partition beyond the disk",
      gptDisk([ESP_GUID, LINUX_GUID]).slice(0, (40 + 8) * 512),
      gpt([nth(1, ESP)]),
    ],
  ])("tells one with %s", async (_name, disk, expected) => {
    expect(await contentOf(disk)).toEqual(expected);
  });

  it.each<[string, bigint, bigint]>([
    ["ends before it begins", 40n, 38n],
    ["has no sectors", 40n, 39n],
    ["begins at the MBR", 0n, 39n],
    ["ends beyond the disk", 40n, 2048n],
    ["ends beyond any disk", 40n, 2n ** 64n - 1n],
    ["begins beyond any disk", 2n ** 64n - 1n, 2n ** 64n - 1n],
  ])("does not count a partition that %s", async (_name, first, last) => {
    const disk = gptDisk([ESP_GUID, LINUX_GUID], {
      entries: (view) => {
        view.setBigUint64(32, first, true);
        view.setBigUint64(40, last, true);
      },
    });
    expect(await contentOf(disk)).toEqual(gpt([nth(2, LINUX)]));
  });

  it.each<[string, Uint8Array, string]>([
    [
      "header of another length",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(12, 91, true) }),
      "its GPT header has an impossible length",
    ],
    [
      "header longer than a sector",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(12, 513, true) }),
      "its GPT header has an impossible length",
    ],
    [
      "bit changed in its header",
      gptDisk([ESP_GUID], { damage: { 570: [1] } }),
      "the checksum of its GPT header is wrong",
    ],
    [
      "header that was copied from elsewhere",
      gptDisk([ESP_GUID], { header: (h) => h.setBigUint64(24, 2047n, true) }),
      "its GPT header was made for another place",
    ],
    [
      "bit changed in its entries",
      gptDisk([ESP_GUID], { damage: { 1100: [1] } }),
      "the checksum of its GPT entries is wrong",
    ],
    [
      "entries of 0 bytes",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(84, 0, true) }),
      "its GPT entries are of 0 bytes",
    ],
    [
      "entries of 127 bytes",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(84, 127, true) }),
      "its GPT entries are of 127 bytes",
    ],
    [
      "entries of 384 bytes",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(84, 384, true) }),
      "its GPT entries are of 384 bytes",
    ],
    [
      "no entries",
      gptDisk([], { header: (h) => h.setUint32(80, 0, true) }),
      "its GPT has 0 entries, at most 1024 are read",
    ],
    [
      "4 billion entries",
      gptDisk([ESP_GUID], { header: (h) => h.setUint32(80, 0xffffffff, true) }),
      "its GPT has 4294967295 entries, at most 1024 are read",
    ],
    [
      "entries that go beyond the disk",
      gptDisk([ESP_GUID], { entriesSector: 2040n }),
      "its GPT entries lie outside the disk",
    ],
    [
      "entries beyond any disk",
      gptDisk([ESP_GUID], { header: (h) => h.setBigUint64(72, 2n ** 64n - 1n, true) }),
      "its GPT entries lie outside the disk",
    ],
    ["its header cut off", gptDisk([ESP_GUID]).slice(0, 600), "its GPT header is cut off"],
  ])("does not believe one with %s", async (_name, disk, problem) => {
    expect(await contentOf(disk)).toEqual(gpt([], { problem }));
  });

  it("tells one for sectors of 4096 bytes, which boots from none of ours", async () => {
    const problem = "its GPT is for sectors of 4096 bytes, disks here have sectors of 512 bytes";
    expect(await contentOf(gptDisk([ESP_GUID], { sectorBytes: 4096, bootCode: CODE }))).toEqual(
      gpt([], { problem }),
    );
  });
});

describe("recogniseDisk on an MBR", () => {
  it.each<[string, Uint8Array, PartitionedDisk]>([
    [
      "boot code",
      mbrDisk([{ type: 0x83, firstSector: 2048, status: 0x80 }], { bootCode: CODE, sizeBytes: 4 * MIB }),
      mbr([[1, "0x83", "Linux file system", 2048]], { hasBiosBootCode: true }),
    ],
    ["no boot code", mbrDisk([{ type: 0x83, firstSector: 1 }]), mbr([[1, "0x83", "Linux file system", 1]])],
    [
      "an EFI system partition",
      mbrDisk([{ type: 0x83, firstSector: 1 }, { type: 0xef, firstSector: 9 }]),
      mbr([[1, "0x83", "Linux file system", 1], [2, "0xef", "EFI system partition", 9]], {
        hasEfiSystemPartition: true,
      }),
    ],
    [
      "an extended partition, which is not followed, and a foreign one behind a gap",
      mbrDisk([{ type: 0x05, firstSector: 1 }, { type: 0, firstSector: 0 }, { type: 0xa5, firstSector: 9 }]),
      mbr([[1, "0x05", "extended partition", 1], [3, "0xa5", null, 9]]),
    ],
    [
      "code in its last bytes only",
      mbrDisk([{ type: 0x83, firstSector: 1, status: 0x80 }], { bootCode: `${"\0".repeat(439)}\xf4` }),
      mbr([[1, "0x83", "Linux file system", 1]], { hasBiosBootCode: true }),
    ],
    ...([
      ["a few bytes of code and no active partition", CODE, false],
      ["code that loads by itself and no active partition", GRUB, true],
      ["code that loads by itself, at the end, and no active partition", `${"\0".repeat(438)}\xcd\x13`, true],
      ["a call of the disk across the end of the code", `${"\0".repeat(439)}\xcd\x13`, false],
      ["parted's code and no active partition", PARTED, false],
      ["syslinux' code and no active partition", `${GRUB}Multiple active partitions.\r\n`, false],
      ["Windows' code and no active partition", `${GRUB}Invalid partition table`, false],
    ] as const).map(([name, bootCode, hasBiosBootCode]): [string, Uint8Array, PartitionedDisk] => [
      name,
      mbrDisk([{ type: 0x83, firstSector: 1 }], { bootCode }),
      mbr([[1, "0x83", "Linux file system", 1]], { hasBiosBootCode }),
    ]),
    [
      "an active entry that is no partition",
      mbrDisk([{ type: 0x83, firstSector: 1 }, { type: 0, firstSector: 0, status: 0x80 }], {
        bootCode: CODE,
      }),
      mbr([[1, "0x83", "Linux file system", 1]]),
    ],
    [
      "a disk signature, which is no code",
      withBytes(mbrDisk([{ type: 0x83, firstSector: 1 }]), [1, 2, 3, 4], 440),
      mbr([[1, "0x83", "Linux file system", 1]]),
    ],
  ])("tells one with %s", async (_name, disk, expected) => {
    expect(await contentOf(disk)).toEqual(expected);
  });

  it.each<[string, Uint8Array]>([
    ["without partitions", mbrDisk([], { bootCode: CODE })],
    ["with a partition at sector 0", mbrDisk([{ type: 0x83, firstSector: 0 }], { bootCode: CODE })],
    ["with a partition beyond the disk", mbrDisk([{ type: 0x83, firstSector: 2048 }], { bootCode: CODE })],
    ["with a status that is none", mbrDisk([{ type: 0x83, firstSector: 1, status: 1 }])],
    ["without its signature", mbrDisk([{ type: 0x83, firstSector: 1 }]).fill(0, 510, 512)],
  ])("takes one %s for none", async (_name, disk) => {
    expect(await contentOf(disk)).toEqual({
      kind: "unknown",
      why: "has no partition table",
      isUnseen: false,
    });
  });

  it("HD11 tells one of one sector by the size of the whole file", async () => {
    const sector = mbrDisk([{ type: 0x83, firstSector: 2048, status: 0x80 }], { bootCode: CODE }).slice(
      0,
      512,
    );
    expect(await contentOf(sector, 4 * MIB)).toEqual(
      mbr([[1, "0x83", "Linux file system", 2048]], { hasBiosBootCode: true }),
    );
  });
});

function withBytes(disk: Uint8Array, bytes: readonly number[], at: number): Uint8Array {
  disk.set(bytes, at);
  return disk;
}
