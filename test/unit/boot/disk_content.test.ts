import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ByteWindow, windowOf } from "../../../src/boot/byte_window.ts";
import { type DiskContent, recogniseDisk, refuseContainer } from "../../../src/boot/disk_content.ts";
import { bytesWith, ESP_GUID, gptDisk, LINUX_GUID, mbrDisk } from "../../support/disk_bytes.ts";
import { refusalOf } from "../../support/failures.ts";

const CODE = "\xfa\x31\xc0"; // cli; xor ax, ax
const gpt = (hasEfiSystemPartition: boolean, hasBiosBootCode = false): DiskContent => ({
  kind: "partitioned",
  table: "gpt",
  hasEfiSystemPartition,
  hasBiosBootCode,
});
const mbr = (hasEfiSystemPartition: boolean, hasBiosBootCode: boolean): DiskContent => ({
  kind: "partitioned",
  table: "mbr",
  hasEfiSystemPartition,
  hasBiosBootCode,
});
const UNKNOWN: DiskContent = { kind: "unknown" };
const MIB = 1024 * 1024;

const many = (guid: string) => Array.from({ length: 127 }, () => LINUX_GUID).concat(guid);

/** A FAT boot sector ends in 55 AA too; where partition entries would be it has text and code. */
const fatBootSector = bytesWith(MIB, {
  0: "\xeb\x3c\x90mkfs.fat",
  0x36: "FAT16   ",
  0x3e: "\x0e\x1f\xbe\x5b\x7c",
  440: "This is not a bootable disk. Please insert a bootable floppy and press any key to try again",
  510: [0x55, 0xaa],
});
const fatBootSectorWithoutText = bytesWith(MIB, {
  0: "\xeb\x58\x90mkfs.fat",
  0x52: "FAT32   ",
  510: [0x55, 0xaa],
});

describe("recogniseDisk", () => {
  it.each([
    ["GPT with an EFI system partition", gptDisk([ESP_GUID]), gpt(true)],
    ["GPT with one behind others", gptDisk([LINUX_GUID, LINUX_GUID, ESP_GUID]), gpt(true)],
    ["GPT with one in the last entry", gptDisk(many(ESP_GUID)), gpt(true)],
    ["GPT without any", gptDisk([LINUX_GUID]), gpt(false)],
    ["GPT without partitions", gptDisk([]), gpt(false)],
    ["GPT with boot code in its MBR", gptDisk([LINUX_GUID], { bootCode: CODE }), gpt(false, true)],
    ["GPT for both", gptDisk([LINUX_GUID, ESP_GUID], { bootCode: CODE }), gpt(true, true)],
    ["GPT with its entries elsewhere", gptDisk([ESP_GUID], { entriesSector: 40n }), gpt(true)],
    ["GPT that counts fewer entries than it has", gptDisk([LINUX_GUID, ESP_GUID], { count: 1 }), gpt(false)],
    ["GPT of 4 billion entries", gptDisk([ESP_GUID], { count: 0xffffffff }), gpt(true)],
    ["GPT with entries of another length", gptDisk([ESP_GUID], { entryBytes: 0 }), gpt(false)],
    ["GPT with entries beyond what is read", gptDisk([ESP_GUID], { entriesSector: 1000n }), gpt(false)],
    ["GPT with entries beyond any disk", gptDisk([ESP_GUID], { entriesSector: 2n ** 64n - 1n }), gpt(false)],
    ["a protective MBR without GPT", mbrDisk([{ type: 0xee, firstSector: 1 }]), UNKNOWN],
    [
      "MBR with boot code",
      mbrDisk([{ type: 0x83, firstSector: 2048, status: 0x80 }], { bootCode: CODE, sizeBytes: 4 * MIB }),
      mbr(false, true),
    ],
    ["MBR without boot code", mbrDisk([{ type: 0x83, firstSector: 1 }]), mbr(false, false)],
    [
      "MBR with an EFI system partition",
      mbrDisk([{ type: 0x83, firstSector: 1 }, { type: 0xef, firstSector: 9 }]),
      mbr(true, false),
    ],
    [
      "MBR with code in its last bytes only",
      mbrDisk([{ type: 0x83, firstSector: 1 }], { bootCode: `${"\0".repeat(439)}\xf4` }),
      mbr(false, true),
    ],
    [
      "MBR with a disk signature, which is no code",
      bytesWithSignature(mbrDisk([{ type: 0x83, firstSector: 1 }])),
      mbr(false, false),
    ],
    ["MBR without partitions", mbrDisk([], { bootCode: CODE }), UNKNOWN],
    [
      "MBR with a partition at sector 0",
      mbrDisk([{ type: 0x83, firstSector: 0 }], { bootCode: CODE }),
      UNKNOWN,
    ],
    [
      "MBR with a partition beyond the disk",
      mbrDisk([{ type: 0x83, firstSector: 2048 }], { sizeBytes: MIB }),
      UNKNOWN,
    ],
    ["MBR with a status that is none", mbrDisk([{ type: 0x83, firstSector: 1, status: 1 }]), UNKNOWN],
    ["MBR without its signature", mbrDisk([{ type: 0x83, firstSector: 1 }]).fill(0, 510, 512), UNKNOWN],
    ["a FAT boot sector", fatBootSector, UNKNOWN],
    ["a FAT boot sector with nothing in the entries", fatBootSectorWithoutText, UNKNOWN],
    ["zeros", new Uint8Array(MIB), UNKNOWN],
    ["text", bytesWith(MIB, { 0: "#!/bin/sh\n" }), UNKNOWN],
  ])("tells %s", async (_name, disk, expected) => {
    expect(await recogniseDisk(windowOf(disk))).toEqual(expected);
  });

  it.each([
    ["squashfs", { 0: "hsqs" }],
    ["xfs", { 0: "XFSB" }],
    ["erofs", { 1024: "\xe2\xe1\xf5\xe0" }],
    ["ext", { 1080: "\x53\xef" }],
    ["iso9660", { 32768: "\x01CD001\x01" }],
    ["btrfs", { 65600: "_BHRfS_M" }],
  ])("tells a bare %s file system", async (name, parts) => {
    expect(await recogniseDisk(windowOf(bytesWith(MIB, parts)))).toEqual({ kind: "file-system", name });
  });

  it("tells a file system behind a boot sector without partitions", async () => {
    const disk = bytesWith(MIB, { 0: CODE, 510: [0x55, 0xaa], 1080: "\x53\xef" });
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "file-system", name: "ext" });
  });

  it("tells an ISO that was made for USB sticks, whose partition starts at 0", async () => {
    const disk = mbrDisk([{ type: 0x17, firstSector: 0, status: 0x80 }], { bootCode: CODE });
    disk.set(Buffer.from("CD001"), 32769);
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "file-system", name: "iso9660" });
  });

  it("believes a partition table before whatever lies behind it", async () => {
    const disk = gptDisk([ESP_GUID]);
    disk.set(Buffer.from("CD001"), 32769);
    expect(await recogniseDisk(windowOf(disk))).toEqual(gpt(true));
  });

  const CONTAINERS: readonly (readonly [string, Record<number, string>])[] = [
    ["qcow2", { 0: "QFI\xfb\0\0\0\x03" }],
    ["qed", { 0: "QED\0" }],
    ["vmdk", { 0: "KDMV\x01" }],
    ["vmdk", { 0: "COWD" }],
    ["vmdk", { 0: '# Disk DescriptorFile\nversion=1\nRW 1 FLAT "/etc/passwd" 0\n' }],
    ["vdi", { 0: "<<< Oracle VM VirtualBox Disk Image >>>\n", 64: "\x7f\x10\xda\xbe" }],
    ["vhdx", { 0: "vhdxfile" }],
    ["vhd", { 0: "conectix" }],
    ["luks", { 0: "LUKS\xba\xbe\0\x02" }],
    ["parallels", { 0: "WithoutFreeSpace" }],
    ["parallels", { 0: "WithouFreSpacExt" }],
    ["gzip", { 0: "\x1f\x8b\x08" }],
    ["zstd", { 0: "\x28\xb5\x2f\xfd" }],
    ["xz", { 0: "\xfd7zXZ\0" }],
  ];

  it.each(CONTAINERS)("HD08 tells a %s file", async (name, parts) => {
    expect(await recogniseDisk(windowOf(bytesWith(MIB, parts)))).toEqual({ kind: "container", name });
  });

  it.each(CONTAINERS)("HD09 tells a %s file that is a bootable disk as well", async (name, parts) => {
    const disk = gptDisk([ESP_GUID]);
    for (const [offset, text] of Object.entries(parts)) disk.set(Buffer.from(text, "latin1"), Number(offset));
    expect(await recogniseDisk(windowOf(disk))).toEqual({ kind: "container", name });
  });

  it.each([0, 1, 3, 71, 103, 511])("HD11 knows nothing of a head of %i bytes", async (sizeBytes) => {
    for (
      const whole of [
        gptDisk([ESP_GUID]),
        mbrDisk([{ type: 0x83, firstSector: 1 }], { bootCode: CODE }),
        bytesWith(2048, { 1080: "\x53\xef" }),
      ]
    ) {
      expect(await recogniseDisk(windowOf(whole.slice(0, sizeBytes)))).toEqual(UNKNOWN);
    }
  });

  it("HD11 tells the container of a head of 4 bytes, and not of 3", async () => {
    const qcow2 = bytesWith(4, { 0: "QFI\xfb" });
    expect(await recogniseDisk(windowOf(qcow2))).toEqual({ kind: "container", name: "qcow2" });
    expect(await recogniseDisk(windowOf(qcow2.slice(0, 3)))).toEqual(UNKNOWN);
  });

  it("HD11 tells an MBR of one sector by the size of the whole file", async () => {
    const sector = mbrDisk([{ type: 0x83, firstSector: 2048 }], { bootCode: CODE }).slice(0, 512);
    expect(await recogniseDisk(windowOf(sector, 4 * MIB))).toEqual(mbr(false, true));
    expect(await recogniseDisk(windowOf(sector))).toEqual(UNKNOWN);
  });

  it("takes a GPT whose header is cut off for no disk", async () => {
    expect(await recogniseDisk(windowOf(gptDisk([ESP_GUID]).slice(0, 519)))).toEqual(UNKNOWN);
    expect(await recogniseDisk(windowOf(gptDisk([ESP_GUID]).slice(0, 600)))).toEqual(gpt(false));
  });

  it("never throws and reads at most 68 KiB, whatever the bytes", async () => {
    const anyHead = fc.oneof(
      fc.uint8Array({ maxLength: 2048 }),
      fc.uint8Array({ minLength: 1600, maxLength: 1600 }).map((noise) => {
        const disk = gptDisk([ESP_GUID]).slice(0, 1600);
        // Over the partition entries and the GPT header's fields, signatures kept.
        disk.set(noise.subarray(0, 64), 446);
        disk.set([0xee], 450);
        disk.set([0x55, 0xaa], 510);
        disk.set(noise.subarray(64, 600), 520);
        return disk;
      }),
    );
    await fc.assert(fc.asyncProperty(anyHead, fc.maxSafeNat(), async (head, sizeBytes) => {
      const { window, reads } = watched(windowOf(head, sizeBytes));
      expect(["partitioned", "file-system", "container", "unknown"]).toContain(
        (await recogniseDisk(window)).kind,
      );
      expect(reads).toEqual([[0, 65608]]);
    }));
  });

  it("knows nothing of random bytes", async () => {
    const noise = randomBytes(MIB);
    // What chance could put there.
    for (const at of [0, 64, 510, 1024, 1080, 32769, 65600]) noise[at] = 0;
    expect(await recogniseDisk(windowOf(noise))).toEqual(UNKNOWN);
  });
});

function bytesWithSignature(disk: Uint8Array): Uint8Array {
  disk.set([1, 2, 3, 4], 440);
  return disk;
}

/** The same window, with a list of what was read. */
function watched(window: ByteWindow): { window: ByteWindow; reads: [number, number][] } {
  const reads: [number, number][] = [];
  return {
    window: {
      sizeBytes: window.sizeBytes,
      read: (offsetBytes, lengthBytes) => {
        reads.push([offsetBytes, lengthBytes]);
        return window.read(offsetBytes, lengthBytes);
      },
    },
    reads,
  };
}

describe("refuseContainer", () => {
  it.each([gpt(true), mbr(false, false), { kind: "file-system", name: "ext" } as const, UNKNOWN])(
    "lets $kind pass",
    (content) => {
      refuseContainer(content);
    },
  );

  it("HD08 refuses a container with a remedy", () => {
    expect(refusalOf(() => refuseContainer({ kind: "container", name: "qcow2" }))).toEqual({
      code: "FORMAT_MISMATCH",
      message: "Cannot use the rootfs layer as a disk: it is a qcow2 file, must be a raw disk image",
      details: {
        format: "qcow2",
        remedy: "publish the image with a raw disk: qemu-img convert -O raw, or unpack it",
      },
    });
  });
});
