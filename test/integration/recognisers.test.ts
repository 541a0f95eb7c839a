import { readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type DiskContent, recogniseDisk } from "../../src/boot/disk_content.ts";
import type { Partition, PartitionedDisk } from "../../src/boot/partition_table.ts";
import { type GuestPartKind, makeGuestPart } from "../support/guest_image.ts";
import { recogniseFile, runTool } from "../support/real_files.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const MIB = 1024 * 1024;

/** An empty file in the test's directory. */
async function emptyFile(sizeBytes = 16 * MIB): Promise<string> {
  const path = join(directory(), "image");
  await writeFile(path, "");
  await truncate(path, sizeBytes);
  return path;
}

async function diskIn(path: string): Promise<DiskContent> {
  const { content, readBytes } = await recogniseFile(path, recogniseDisk);
  expect(readBytes).toBeLessThanOrEqual(68 * 1024);
  return content;
}

const ESP = { type: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", name: "EFI system partition" };
const LINUX = { type: "0FC63DAF-8483-4772-8E79-3D69D8477DE4", name: "Linux file system" };
/** sgdisk begins at 1 MiB and leaves the last 33 sectors, here of 16 MiB, to the backup of its table. */
const LAST_USABLE_BYTES = 16 * MIB - 33 * 512;

function partition(
  number: number,
  kind: { type: string; name: string },
  range: readonly [startBytes: number, endBytes: number],
): Partition {
  return { number, ...kind, startBytes: range[0], sizeBytes: range[1] - range[0] };
}

function gpt(partitions: readonly Partition[], further: Partial<PartitionedDisk> = {}): PartitionedDisk {
  return {
    kind: "partitioned",
    table: "gpt",
    partitions,
    hasEfiSystemPartition: partitions.some(({ type }) => type === ESP.type),
    hasBiosBootCode: false,
    isHybrid: false,
    problem: null,
    ...further,
  };
}

describe("recogniseDisk on what real tools make", () => {
  it.each<[string, readonly string[], DiskContent]>([
    [
      "an EFI system partition",
      ["--new=1:0:+4M", "--typecode=1:ef00", "--new=2:0:0", "--typecode=2:8300"],
      gpt([partition(1, ESP, [MIB, 5 * MIB]), partition(2, LINUX, [5 * MIB, LAST_USABLE_BYTES])]),
    ],
    [
      "an EFI system partition as the last of 128",
      ["--new=128:0:0", "--typecode=128:ef00"],
      gpt([partition(128, ESP, [MIB, LAST_USABLE_BYTES])]),
    ],
    [
      "an EFI system partition in a table of 256",
      ["--resize-table=256", "--new=256:0:+4M", "--typecode=256:ef00"],
      gpt([partition(256, ESP, [MIB, 5 * MIB])]),
    ],
    [
      "a Linux partition only",
      ["--new=1:0:0", "--typecode=1:8300"],
      gpt([partition(1, LINUX, [MIB, LAST_USABLE_BYTES])]),
    ],
    ["no partitions", [], gpt([])],
  ])("tells sgdisk's table with %s", async (_name, options, expected) => {
    const path = await emptyFile();
    await runTool("sgdisk", ["--clear", ...options, path]);
    expect(await diskIn(path)).toEqual(expected);
  });

  it("tells sgdisk's hybrid MBR, and the MBR that it leaves of a GPT", async () => {
    const path = await emptyFile();
    await runTool("sgdisk", ["--clear", "--new=1:0:+4M", "--typecode=1:ef00", "--hybrid=1", path]);
    expect(await diskIn(path)).toEqual(gpt([partition(1, ESP, [MIB, 5 * MIB])], { isHybrid: true }));
    await runTool("sgdisk", ["--gpttombr=1", path]);
    expect(await diskIn(path)).toEqual({
      ...gpt([partition(1, { type: "0xef", name: "EFI system partition" }, [MIB, 5 * MIB])]),
      table: "mbr",
      hasEfiSystemPartition: true,
    });
  });

  it("does not believe sgdisk's table when a byte of it changed", async () => {
    const path = await emptyFile();
    await runTool("sgdisk", ["--clear", "--new=1:0:+4M", "--typecode=1:ef00", path]);
    const disk = await readFile(path);
    disk.writeUInt8(disk.readUInt8(1024 + 40) ^ 1, 1024 + 40);
    await writeFile(path, disk);
    expect(await diskIn(path)).toEqual(gpt([], { problem: "the checksum of its GPT entries is wrong" }));
  });

  it.each(["ext2", "ext3", "ext4"])("tells %s by mke2fs", async (type) => {
    const path = await emptyFile();
    await runTool("mke2fs", ["-q", "-F", "-t", type, path]);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: type });
  });

  it.each(["12", "16", "32"])("tells FAT%s by mkfs.fat", async (bits) => {
    const path = await emptyFile(bits === "32" ? 64 * MIB : 16 * MIB);
    await runTool("mkfs.fat", ["-F", bits, path]);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "vfat" });
  });

  it("tells a swap area by mkswap", async () => {
    const path = await emptyFile();
    await runTool("mkswap", [path]);
    expect(await diskIn(path)).toEqual({ kind: "volume", name: "swap area" });
  });

  it("tells XFS by mkfs.xfs", async () => {
    const path = await emptyFile(320 * MIB);
    await runTool("mkfs.xfs", ["-q", path]);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "xfs" });
  });

  it("tells btrfs by mkfs.btrfs", async () => {
    const path = await emptyFile(128 * MIB);
    await runTool("mkfs.btrfs", ["-q", path]);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "btrfs" });
  });

  it.each(["qcow2", "qed", "vmdk", "vdi", "vhdx", "parallels"])(
    "HD08 tells qemu-img's %s",
    async (format) => {
      const path = join(directory(), "image");
      await runTool("qemu-img", ["create", "-q", "-f", format, path, "16M"]);
      expect(await diskIn(path)).toEqual({ kind: "container", name: format, also: [] });
    },
  );

  it.each<[string, readonly string[]]>([
    ["vhd", ["-f", "vpc", "-o", "subformat=dynamic"]],
    ["vhd", ["-f", "vpc", "-o", "subformat=fixed"]],
    ["vmdk", ["-f", "vmdk", "-o", "subformat=monolithicFlat"]],
    ["vmdk", ["-f", "vmdk", "-o", "subformat=streamOptimized"]],
  ])("HD08 HD10 tells qemu-img's %s of another kind", async (name, options) => {
    const path = join(directory(), "image");
    await runTool("qemu-img", ["create", "-q", ...options, path, "16M"]);
    expect(await diskIn(path)).toEqual({ kind: "container", name, also: [] });
  });

  it("HD09 tells a disk that qemu-img wrote as a fixed vhd: two things at once", async () => {
    const [raw, vhd] = [await emptyFile(), join(directory(), "vhd")];
    await runTool("sgdisk", ["--clear", "--new=1:0:0", raw]);
    await runTool("qemu-img", [
      "convert",
      "-f",
      "raw",
      "-O",
      "vpc",
      "-o",
      "subformat=fixed,force_size",
      raw,
      vhd,
    ]);
    expect(await diskIn(vhd)).toEqual({ kind: "container", name: "vhd", also: ["GPT disk"] });
  });

  it("tells a disk packed by gzip", async () => {
    const path = await emptyFile(MIB);
    await runTool("gzip", [path]);
    expect(await diskIn(`${path}.gz`)).toEqual({ kind: "container", name: "gzip", also: [] });
  });

  it.each<[GuestPartKind, DiskContent]>([
    ["rootfs-ext4", { kind: "file-system", name: "ext4" }],
    ["rootfs-squashfs", { kind: "file-system", name: "squashfs" }],
    ["iso", { kind: "file-system", name: "iso9660" }],
    ["kernel", { kind: "unknown", why: "has no partition table", isUnseen: false }],
    ["initramfs", { kind: "container", name: "gzip", also: [] }],
  ])("tells our guest's %s", async (kind, expected) => {
    expect(await diskIn(await makeGuestPart(kind))).toEqual(expected);
  });

  it("tells our guest's disks, with their partition", async () => {
    const uefi = await makeGuestPart("disk-uefi");
    const bios = await makeGuestPart("disk-bios");
    const endOf = async (path: string, behind: number) => (await readFile(path)).length - behind;
    expect(await diskIn(uefi)).toEqual(gpt([partition(1, ESP, [MIB, await endOf(uefi, MIB)])]));
    expect(await diskIn(bios)).toEqual({
      ...gpt([partition(1, { type: "0x0e", name: "FAT16" }, [MIB, await endOf(bios, 0)])]),
      table: "mbr",
      hasBiosBootCode: true,
    });
  });
});
