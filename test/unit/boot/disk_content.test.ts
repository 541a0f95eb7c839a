import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { type DiskContent, recogniseDisk, refuseContainer } from "../../../src/boot/disk_content.ts";
import { bytesWith, ESP_GUID, extDisk, gptDisk, mbrDisk } from "../../support/disk_bytes.ts";
import { refusalOf } from "../../support/failures.ts";

const CODE = "\xfa\x31\xc0"; // cli; xor ax, ax
const MIB = 1024 * 1024;
const unknown = (why: string, isUnseen = false): DiskContent => ({ kind: "unknown", why, isUnseen });
const NO_TABLE = unknown("has no partition table");

/** A FAT boot sector ends in 55 AA too; where partition entries would be it has text and code. */
const fatBootSector = bytesWith(MIB, {
  0: "\xeb\x3c\x90mkfs.fat",
  11: [0, 2],
  0x36: "FAT16   ",
  0x3e: "\x0e\x1f\xbe\x5b\x7c",
  440: "This is not a bootable disk. Please insert a bootable floppy and press any key to try again",
  510: [0x55, 0xaa],
});

describe("recogniseDisk", () => {
  it.each<[string, Uint8Array, string]>([
    ["squashfs", bytesWith(MIB, { 0: "hsqs" }), "squashfs"],
    ["XFS", bytesWith(MIB, { 0: "XFSB" }), "xfs"],
    ["exFAT", bytesWith(MIB, { 0: "\xeb\x76\x90EXFAT   ", 510: "\x55\xaa" }), "exfat"],
    ["NTFS", bytesWith(MIB, { 0: "\xeb\x52\x90NTFS    ", 510: "\x55\xaa" }), "ntfs"],
    ["EROFS", bytesWith(MIB, { 1024: "\xe2\xe1\xf5\xe0" }), "erofs"],
    ["F2FS", bytesWith(MIB, { 1024: "\x10\x20\xf5\xf2" }), "f2fs"],
    ["ISO 9660", bytesWith(MIB, { 32768: "\x01CD001\x01" }), "iso9660"],
    ["UDF", bytesWith(MIB, { 32768: "\0BEA01\x01" }), "udf"],
    ["btrfs", bytesWith(MIB, { 65600: "_BHRfS_M" }), "btrfs"],
    ["ext2", extDisk({ incompat: 0x2, roCompat: 0x3 }), "ext2"],
    ["ext3, by its journal", extDisk({ compat: 0x4, incompat: 0x6, roCompat: 0x3 }), "ext3"],
    ["ext4, by extents", extDisk({ compat: 0x4, incompat: 0x42 }), "ext4"],
    ["ext4 without journal, by huge files", extDisk({ roCompat: 0x8 }), "ext4"],
    ["FAT16", fatBootSector, "vfat"],
    [
      "FAT32",
      bytesWith(MIB, { 0: "\xeb\x58\x90", 11: [0, 2], 0x52: "FAT32   ", 510: "\x55\xaa" }),
      "vfat",
    ],
  ])("tells a bare file system: %s", async (_name, disk, name) => {
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "file-system", name });
  });

  it.each<[string, Uint8Array, string]>([
    ["LVM2 in sector 1", bytesWith(MIB, { 512: "LABELONE", 536: "LVM2 001" }), "LVM2 volume"],
    ["LVM2 in sector 3", bytesWith(MIB, { 1536: "LABELONE", 1560: "LVM2 001" }), "LVM2 volume"],
    ["swap", bytesWith(MIB, { 4086: "SWAPSPACE2" }), "swap area"],
    ["swap of a host with pages of 64 KiB", bytesWith(MIB, { 65526: "SWAPSPACE2" }), "swap area"],
    ["md", bytesWith(MIB, { 4096: "\xfc\x4e\x2b\xa9\x01\0\0\0" }), "RAID member (md)"],
  ])("tells a volume that something else must open: %s", async (_name, disk, name) => {
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "volume", name });
  });

  it.each<[string, Uint8Array, DiskContent]>([
    ["zeros", new Uint8Array(MIB), unknown("begins with zeros only")],
    ["text", bytesWith(MIB, { 0: "#!/bin/sh\n" }), NO_TABLE],
    ["ext's mark in blocks of no size", bytesWith(MIB, { 1048: [7], 1080: "\x53\xef" }), NO_TABLE],
    ["ext's mark in no known revision", bytesWith(MIB, { 1080: "\x53\xef", 1100: [2] }), NO_TABLE],
    ["a boot sector with FAT's name only", bytesWith(MIB, { 54: "FAT16   ", 510: "\x55\xaa" }), NO_TABLE],
    [
      "a protective MBR without GPT",
      mbrDisk([{ type: 0xee, firstSector: 1 }]),
      unknown("has an MBR for a GPT that is not there"),
    ],
    [
      "a GPT without MBR",
      gptDisk([ESP_GUID]).fill(0, 0, 512),
      unknown("has a GPT without the MBR that protects it"),
    ],
  ])("knows nothing of %s", async (_name, disk, expected) => {
    expect(await recogniseDisk(windowOf(disk))).toEqual(expected);
  });

  it("HD21 knows nothing of 10 GiB of zeros, at once", async () => {
    const window = {
      sizeBytes: 10 * 1024 * MIB,
      read: (_: number, length: number) => Promise.resolve(new Uint8Array(length)),
    };
    expect(await recogniseDisk(window)).toEqual(unknown("begins with zeros only"));
  });

  it("tells a file system behind a boot sector without partitions", async () => {
    const disk = extDisk();
    disk.set(Buffer.from(CODE, "latin1"));
    disk.set([0x55, 0xaa], 510);
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "file-system", name: "ext2" });
  });

  it("tells an ISO that was made for USB sticks, whose partition starts at 0", async () => {
    const disk = mbrDisk([{ type: 0x17, firstSector: 0, status: 0x80 }], { bootCode: CODE });
    disk.set(Buffer.from("CD001"), 32769);
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "file-system", name: "iso9660" });
  });

  it("believes a partition table before whatever lies behind it", async () => {
    const disk = gptDisk([ESP_GUID]);
    disk.set(Buffer.from("CD001"), 32769);
    expect((await recogniseDisk(windowOf(disk))).kind).toBe("partitioned");
  });

  it.each<[string, Uint8Array, DiskContent]>([
    ["nothing", new Uint8Array(), unknown("cannot be told without its bytes", true)],
    ["half a sector", new Uint8Array(256), unknown("cannot be told from its first 256 bytes", true)],
    ["all but btrfs's place", new Uint8Array(65600), unknown("cannot be told from its first 64 KiB", true)],
    [
      "a GPT whose entries lie beyond",
      gptDisk([ESP_GUID], { entriesSector: 1000n }).slice(0, 65608),
      unknown("cannot be told from its first 64 KiB", true),
    ],
    ["an ext superblock", extDisk().slice(0, 2048), { kind: "file-system", name: "ext2" }],
  ])("says what it can of a file of which it sees only %s", async (_name, head, expected) => {
    expect(await recogniseDisk(windowOf(head, MIB))).toEqual(expected);
  });

  it.each([0, 1, 3, 71, 103, 511])("HD11 knows nothing of %i bytes", async (sizeBytes) => {
    for (const whole of [gptDisk([ESP_GUID]), mbrDisk([{ type: 0x83, firstSector: 1 }]), extDisk()]) {
      expect((await recogniseDisk(windowOf(whole.slice(0, sizeBytes)))).kind).toBe("unknown");
    }
  });

  it("knows nothing of random bytes", async () => {
    const noise = randomBytes(MIB);
    // What chance could put there.
    for (const at of [0, 3, 64, 510, 1024, 1080, 32769, 65600]) noise[at] = 0;
    expect(await recogniseDisk(windowOf(noise))).toEqual(NO_TABLE);
  });
});

describe("recogniseDisk on container formats", () => {
  const AT_START: readonly (readonly [string, Record<number, string>])[] = [
    ["qcow2", { 0: "QFI\xfb\0\0\0\x03" }],
    ["qed", { 0: "QED\0" }],
    ["vmdk", { 0: "KDMV\x01" }],
    ["vmdk", { 0: "COWD" }],
    ["vmdk", { 0: "\xbe\xba\xfe\xca\0\0\0\0" }],
    ["vmdk", { 0: '# Disk DescriptorFile\nversion=1\nRW 1 FLAT "/etc/passwd" 0\n' }],
    ["vmdk", { 0: "# anything\n\n   \r\nversion=2\r\n" }],
    ["vmdk", { 0: "version=3\n" }],
    ["vdi", { 0: "<<< Oracle VM VirtualBox Disk Image >>>\n", 64: "\x7f\x10\xda\xbe" }],
    ["vhdx", { 0: "vhdxfile" }],
    ["vhd", { 0: "conectix" }],
    ["luks", { 0: "LUKS\xba\xbe\0\x02" }],
    ["parallels", { 0: "WithoutFreeSpace" }],
    ["parallels", { 0: "WithouFreSpacExt" }],
    ["bochs", { 0: "Bochs Virtual HD Image" }],
    ["cloop", { 0: "#!/bin/sh\n#V2.0 Format\nmodprobe cloop" }],
    ["dmg", { 0: "koly" }],
    ["gzip", { 0: "\x1f\x8b\x08" }],
    ["zstd", { 0: "\x28\xb5\x2f\xfd" }],
    ["xz", { 0: "\xfd7zXZ\0" }],
    ["bzip2", { 0: "BZh91AY&SY" }],
    ["lz4", { 0: "\x04\x22\x4d\x18" }],
  ];
  const AT_END: readonly (readonly [string, Record<number, string>])[] = [
    ["vhd", { [MIB - 512]: "conectix" }],
    ["vhd", { [MIB - 511]: "conectix" }],
    ["vmdk", { [MIB - 1024]: "KDMV" }],
    ["dmg", { [MIB - 512]: "koly" }],
  ];

  it.each([...AT_START, ...AT_END])("HD08 tells a %s file", async (name, parts) => {
    expect(await recogniseDisk(windowOf(bytesWith(MIB, parts)))).toEqual({
      kind: "container",
      name,
      also: [],
    });
  });

  it.each([...AT_START, ...AT_END])(
    "HD09 tells a %s file that is a bootable disk as well",
    async (name, parts) => {
      const disk = gptDisk([ESP_GUID]);
      for (const [offset, text] of Object.entries(parts)) {
        disk.set(
          Buffer.from(text, "latin1"),
          Number(offset),
        );
      }
      expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "container", name, also: ["GPT disk"] });
    },
  );

  it("HD09 names everything that one file is", async () => {
    const file = bytesWith(MIB, {
      0: "QFI\xfb",
      64: "\x7f\x10\xda\xbe",
      512: "EFI PART",
      32769: "CD001",
      [MIB - 512]: "conectix",
    });
    expect(await recogniseDisk(windowOf(file))).toEqual({
      kind: "container",
      name: "qcow2",
      also: ["vdi", "vhd", "iso9660"],
    });
    expect(await recogniseDisk(windowOf(file.fill(0, 32769, 32774)))).toEqual({
      kind: "container",
      name: "qcow2",
      also: ["vdi", "vhd", "GPT disk"],
    });
  });

  it("HD09 says nothing of an end that it does not see", async () => {
    const disk = gptDisk([ESP_GUID]);
    disk.set(Buffer.from("conectix"), MIB - 512);
    expect((await recogniseDisk(windowOf(disk.slice(0, 65608), MIB))).kind).toBe("partitioned");
  });

  it("HD11 tells the container of a head of 4 bytes, and not of 3", async () => {
    const qcow2 = bytesWith(4, { 0: "QFI\xfb" });
    expect(await recogniseDisk(windowOf(qcow2))).toEqual({ kind: "container", name: "qcow2", also: [] });
    expect(await recogniseDisk(windowOf(qcow2.slice(0, 3)))).toEqual(NO_TABLE);
  });
});

describe("refuseContainer", () => {
  it.each<DiskContent>([
    { kind: "file-system", name: "ext4" },
    { kind: "volume", name: "swap area" },
    NO_TABLE,
  ])(
    "lets $kind pass",
    (content) => {
      refuseContainer(content);
    },
  );

  it("HD08 refuses a container with a remedy", () => {
    expect(refusalOf(() => refuseContainer({ kind: "container", name: "vmdk", also: [] }))).toEqual({
      code: "FORMAT_MISMATCH",
      message:
        "Cannot use the rootfs layer as a disk: it is a vmdk file, must be a raw disk image or a qcow2 file",
      details: {
        format: "vmdk",
        remedy: "publish the image with a raw disk: qemu-img convert -O raw, or unpack it",
      },
    });
  });

  it("HD09 refuses what is two things at once", () => {
    expect(
      refusalOf(() => refuseContainer({ kind: "container", name: "vhd", also: ["GPT disk"] }, "squashfs")),
    ).toEqual({
      code: "FORMAT_UNSAFE",
      message:
        "Cannot use the squashfs layer as a disk: it is a vhd file and at once GPT disk, must be one of them",
      details: {
        reason: "ambiguous",
        formats: ["vhd", "GPT disk"],
        remedy: "publish the image with a raw disk: qemu-img convert -O raw, or unpack it",
      },
    });
  });
});
