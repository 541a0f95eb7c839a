import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, open, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { type ByteWindow, windowOf } from "../../src/boot/byte_window.ts";
import { type DiskContent, HEAD_BYTES, recogniseDisk } from "../../src/boot/disk_content.ts";
import { recogniseInitramfs } from "../../src/boot/initramfs_content.ts";
import { recogniseIso } from "../../src/boot/iso_content.ts";
import { judgeDisk } from "../../src/boot/judge_disk.ts";
import { type KernelContent, recogniseKernel } from "../../src/boot/kernel_content.ts";
import type { Partition, PartitionedDisk } from "../../src/boot/partition_table.ts";
import { recogniseUki } from "../../src/boot/uki_content.ts";
import { failureOf } from "../support/failures.ts";
import { type GuestPartKind, makeGuestPart } from "../support/guest_image.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const MIB = 1024 * 1024;

/** Runs a program to its end; tools of disks and file systems live in sbin. */
async function run(program: string, ...args: readonly string[]): Promise<void> {
  await promisify(execFile)(program, [...args], {
    env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` },
  });
}

/** An empty file in the test's directory. */
async function emptyFile(sizeBytes = 16 * MIB): Promise<string> {
  const path = join(directory(), "image");
  await writeFile(path, "");
  await truncate(path, sizeBytes);
  return path;
}

/** Gives what a recogniser says of a real file, and how many bytes it read for that. */
async function recognise<T>(
  path: string,
  recogniser: (window: ByteWindow) => Promise<T>,
): Promise<{ content: T; readBytes: number }> {
  const file = await open(path, "r");
  try {
    let readBytes = 0;
    const content = await recogniser({
      sizeBytes: (await file.stat()).size,
      read: async (offsetBytes, lengthBytes) => {
        const buffer = new Uint8Array(lengthBytes);
        const { bytesRead } = await file.read(buffer, 0, lengthBytes, offsetBytes);
        readBytes += bytesRead;
        return buffer.subarray(0, bytesRead);
      },
    });
    return { content, readBytes };
  } finally {
    await file.close();
  }
}

async function diskIn(path: string): Promise<DiskContent> {
  const { content, readBytes } = await recognise(path, recogniseDisk);
  expect(readBytes).toBeLessThanOrEqual(68 * 1024);
  return content;
}

const ROOTFS = { mediaType: "application/vnd.ironcore.image.rootfs" };
const judge = async (path: string) => (await recognise(path, (file) => judgeDisk(file, ROOTFS))).content;

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

async function kernelIn(path: string): Promise<KernelContent> {
  const { content, readBytes } = await recognise(path, recogniseKernel);
  expect(readBytes).toBeLessThanOrEqual(68 * 1024);
  return content;
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
    await run("sgdisk", "--clear", ...options, path);
    expect(await diskIn(path)).toEqual(expected);
  });

  it("tells sgdisk's hybrid MBR, and the MBR that it leaves of a GPT", async () => {
    const path = await emptyFile();
    await run("sgdisk", "--clear", "--new=1:0:+4M", "--typecode=1:ef00", "--hybrid=1", path);
    expect(await diskIn(path)).toEqual(gpt([partition(1, ESP, [MIB, 5 * MIB])], { isHybrid: true }));
    await run("sgdisk", "--gpttombr=1", path);
    expect(await diskIn(path)).toEqual({
      ...gpt([partition(1, { type: "0xef", name: "EFI system partition" }, [MIB, 5 * MIB])]),
      table: "mbr",
      hasEfiSystemPartition: true,
    });
  });

  it("does not believe sgdisk's table when a byte of it changed", async () => {
    const path = await emptyFile();
    await run("sgdisk", "--clear", "--new=1:0:+4M", "--typecode=1:ef00", path);
    const disk = await readFile(path);
    disk.writeUInt8(disk.readUInt8(1024 + 40) ^ 1, 1024 + 40);
    await writeFile(path, disk);
    expect(await diskIn(path)).toEqual(gpt([], { problem: "the checksum of its GPT entries is wrong" }));
  });

  it.each(["ext2", "ext3", "ext4"])("tells %s by mke2fs", async (type) => {
    const path = await emptyFile();
    await run("mke2fs", "-q", "-F", "-t", type, path);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: type });
  });

  it.each(["12", "16", "32"])("tells FAT%s by mkfs.fat", async (bits) => {
    const path = await emptyFile(bits === "32" ? 64 * MIB : 16 * MIB);
    await run("mkfs.fat", "-F", bits, path);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "vfat" });
  });

  it("tells a swap area by mkswap", async () => {
    const path = await emptyFile();
    await run("mkswap", path);
    expect(await diskIn(path)).toEqual({ kind: "volume", name: "swap area" });
  });

  const hasTool = (name: string) => existsSync(`/usr/sbin/${name}`) || existsSync(`/usr/bin/${name}`);
  it.skipIf(!hasTool("mkfs.xfs"))("tells XFS by mkfs.xfs", async () => {
    const path = await emptyFile(320 * MIB);
    await run("mkfs.xfs", "-q", path);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "xfs" });
  });

  it.skipIf(!hasTool("mkfs.btrfs"))("tells btrfs by mkfs.btrfs", async () => {
    const path = await emptyFile(128 * MIB);
    await run("mkfs.btrfs", "-q", path);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "btrfs" });
  });

  it.each(["qcow2", "qed", "vmdk", "vdi", "vhdx", "parallels"])(
    "HD08 tells qemu-img's %s",
    async (format) => {
      const path = join(directory(), "image");
      await run("qemu-img", "create", "-q", "-f", format, path, "16M");
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
    await run("qemu-img", "create", "-q", ...options, path, "16M");
    expect(await diskIn(path)).toEqual({ kind: "container", name, also: [] });
  });

  it("HD09 tells a disk that qemu-img wrote as a fixed vhd: two things at once", async () => {
    const [raw, vhd] = [await emptyFile(), join(directory(), "vhd")];
    await run("sgdisk", "--clear", "--new=1:0:0", raw);
    await run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size", raw, vhd);
    expect(await diskIn(vhd)).toEqual({ kind: "container", name: "vhd", also: ["GPT disk"] });
  });

  it("tells a disk packed by gzip", async () => {
    const path = await emptyFile(MIB);
    await run("gzip", path);
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

describe("judgeDisk on qcow2 files that qemu-img makes", () => {
  it.each<[string, readonly string[]]>([
    ["by default", []],
    ["of version 2", ["-o", "compat=0.10"]],
    ["in clusters of 512 bytes", ["-o", "cluster_size=512"]],
    ["in clusters of 2 MiB", ["-o", "cluster_size=2M"]],
    ["with lazy refcounts of 64 bits", ["-o", "lazy_refcounts=on,refcount_bits=64"]],
    ["with all tables written", ["-o", "preallocation=metadata"]],
    ["with all clusters written", ["-o", "preallocation=full"]],
    ["compressed", ["-c"]],
    ["compressed, of version 2", ["-c", "-o", "compat=0.10"]],
    ["compressed in clusters of 512 bytes", ["-c", "-o", "cluster_size=512"]],
    ["compressed in clusters of 2 MiB", ["-c", "-o", "cluster_size=2M"]],
    ["compressed by zstd", ["-c", "-o", "compression_type=zstd"]],
    ["compressed by zstd in clusters of 2 MiB", ["-c", "-o", "compression_type=zstd,cluster_size=2M"]],
  ])("takes one %s, and sees the disk in it", async (_name, options) => {
    const disk = await makeGuestPart("disk-uefi");
    const path = join(directory(), "image");
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", ...options, disk, path);
    const { content: judged, readBytes } = await recognise(path, (file) => judgeDisk(file, ROOTFS));
    expect(judged).toEqual({
      format: "qcow2",
      virtualSizeBytes: (await readFile(disk)).length,
      content: await diskIn(disk),
    });
    expect(readBytes).toBeLessThan(MIB);
  });

  it("takes one of a bare file system, one that was grown, and one of zeros", async () => {
    const path = join(directory(), "image");
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", await makeGuestPart("rootfs-ext4"), path);
    expect((await judge(path)).content).toEqual({ kind: "file-system", name: "ext4" });
    await run("qemu-img", "resize", "-q", "-f", "qcow2", path, "3T");
    expect(await judge(path)).toEqual({
      format: "qcow2",
      virtualSizeBytes: 3 * 1024 ** 4,
      content: { kind: "file-system", name: "ext4" },
    });
    await run("qemu-img", "create", "-q", "-f", "qcow2", path, "1G");
    expect((await judge(path)).content).toEqual({
      kind: "unknown",
      why: "begins with zeros only",
      isUnseen: false,
    });
  });

  it("says what a qcow2 file is by its first 64 KiB, and that more cannot be told from them", async () => {
    const path = join(directory(), "image");
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", await makeGuestPart("disk-uefi"), path);
    const file = await readFile(path);
    expect((await judgeDisk(windowOf(file.subarray(0, HEAD_BYTES), file.length), ROOTFS)).content).toEqual({
      kind: "unknown",
      why: "is a qcow2 disk, and what it holds cannot be told from its first 64 KiB",
      isUnseen: true,
    });
  });

  it.each<[string, string, readonly string[]]>([
    ["HD01 a backing file", "backing", ["-b", "base.raw", "-F", "raw"]],
    ["HD01 a backing file in version 2", "backing", ["-o", "compat=0.10", "-b", "base.raw", "-F", "raw"]],
    ["HD02 an external data file", "data-file", ["-o", "data_file=data.raw"]],
    ["HD02 a raw external data file", "data-file", ["-o", "data_file=data.raw,data_file_raw=on"]],
    ["HD03 extended L2 entries", "feature", ["-o", "extended_l2=on"]],
    ["HD07 AES", "encryption", [
      "--object",
      "secret,id=s,data=x",
      "-o",
      "encrypt.format=aes,encrypt.key-secret=s",
    ]],
  ])("refuses one with %s", async (_name, reason, options) => {
    const path = join(directory(), "image");
    await writeFile(join(directory(), "base.raw"), new Uint8Array(MIB));
    await promisify(execFile)("qemu-img", ["create", "-q", "-f", "qcow2", ...options, path, "1M"], {
      cwd: directory(),
    });
    const { code, details } = await failureOf(judge(path));
    expect([code, details["reason"]]).toEqual(["FORMAT_UNSAFE", reason]);
  });

  it("HD07 refuses one with a snapshot, and takes it again without", async () => {
    const path = join(directory(), "image");
    await run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M");
    await run("qemu-img", "snapshot", "-q", "-c", "one", path);
    expect((await failureOf(judge(path))).details["reason"]).toBe("snapshots");
    await run("qemu-img", "snapshot", "-q", "-d", "one", path);
    expect((await judge(path)).format).toBe("qcow2");
  });

  it("HD07 refuses one with a bitmap", async () => {
    const path = join(directory(), "image");
    await run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M");
    await run("qemu-img", "bitmap", "-f", "qcow2", "--add", path, "changes");
    expect((await failureOf(judge(path))).details["reason"]).toBe("bitmaps");
  });

  it("HD01 takes one whose backing file was taken away again", async () => {
    const path = join(directory(), "image");
    await writeFile(join(directory(), "base.raw"), new Uint8Array(MIB));
    await run(
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-b",
      join(directory(), "base.raw"),
      "-F",
      "raw",
      path,
    );
    await run("qemu-img", "rebase", "-f", "qcow2", "-u", "-b", "", path);
    expect((await judge(path)).format).toBe("qcow2");
  });
});

describe("recogniseKernel on real files", () => {
  const NO_HEADER = { kind: "not-a-kernel", why: "it has no bzImage, arm64 Image or EFI/PE header" } as const;
  const GUEST_KERNEL = {
    kind: "kernel",
    format: "bzImage",
    architecture: "amd64",
    isEfiProgram: true,
    version: expect.stringMatching(/^\d+\.\d+\.\d+\S* \(.*\) #\d+ /),
    commandLineLimitBytes: 2047,
  };

  it.each<[GuestPartKind, unknown]>([
    ["kernel", GUEST_KERNEL],
    ["uki", {
      kind: "kernel",
      format: "UKI",
      architecture: "amd64",
      isEfiProgram: true,
      version: null,
      commandLineLimitBytes: null,
    }],
    ["initramfs", {
      kind: "not-a-kernel",
      why: "it is compressed by gzip, and does not begin with an arm64 Image",
    }],
    ["rootfs-ext4", NO_HEADER],
    ["disk-bios", NO_HEADER],
  ])("tells our guest's %s", async (kind, expected) => {
    expect(await kernelIn(await makeGuestPart(kind))).toEqual(expected);
  });

  it("HD17 tells a guest kernel that was cut off", async () => {
    const path = join(directory(), "kernel");
    await copyFile(await makeGuestPart("kernel"), path);
    await truncate(path, MIB);
    expect(await kernelIn(path)).toEqual({
      kind: "not-a-kernel",
      why: expect.stringMatching(/^it is cut off: its setup header says \d+ bytes, it has 1048576$/),
    });
  });

  it("tells the guest kernel from its first 64 KiB", async () => {
    const kernel = await readFile(await makeGuestPart("kernel"));
    const head = windowOf(kernel.subarray(0, HEAD_BYTES), kernel.length);
    expect(await recogniseKernel(head)).toEqual(GUEST_KERNEL);
  });
});

describe("recogniseUki on real files", () => {
  it("tells our guest's UKI, with its words", async () => {
    const path = await makeGuestPart("uki", { cmdline: "console=ttyS0 quiet panic=-1" });
    expect((await recognise(path, recogniseUki)).content).toEqual({
      kind: "uki",
      architecture: "amd64",
      sections: expect.arrayContaining([".sbat", ".osrel", ".cmdline", ".linux", ".initrd"]),
      cmdline: "console=ttyS0 quiet panic=-1",
      osrel: 'ID=bootshim-guest\nNAME="bootshim guest"\nVERSION_ID=1',
      uname: null,
    });
  });

  it.each<[GuestPartKind, string]>([
    ["kernel", "it has no section .linux"],
    ["initramfs", "it is no EFI program"],
  ])("takes our guest's %s for none", async (kind, why) => {
    expect((await recognise(await makeGuestPart(kind), recogniseUki)).content).toEqual({
      kind: "not-a-uki",
      why,
    });
  });
});

describe("recogniseIso on real files", () => {
  it("tells our guest's ISO, which boots by both", async () => {
    const { content, readBytes } = await recognise(await makeGuestPart("iso"), recogniseIso);
    expect(content).toEqual({
      kind: "iso",
      volumeId: "BOOTSHIM",
      hasUdf: false,
      hasBiosBoot: true,
      hasUefiBoot: true,
      unseen: null,
      hybrid: null,
    });
    expect(readBytes).toBeLessThanOrEqual(66 * 1024);
  });

  it.each<[string, readonly string[], { hasUefiBoot: boolean; hybrid: "mbr" | "gpt" | null }]>([
    ["for nothing", [], { hasUefiBoot: false, hybrid: null }],
    ["for uefi only", ["-e", "boot.img", "-no-emul-boot"], { hasUefiBoot: true, hybrid: null }],
    [
      "HD16 for uefi and, by an MBR, USB sticks",
      ["-e", "boot.img", "-no-emul-boot", "-partition_offset", "16"],
      { hasUefiBoot: true, hybrid: "mbr" },
    ],
    [
      "HD16 for uefi and, by a GPT, USB sticks",
      ["-e", "boot.img", "-no-emul-boot", "-appended_part_as_gpt", "-append_partition", "2", "0xef", "BOOT"],
      { hasUefiBoot: true, hybrid: "gpt" },
    ],
  ])("tells xorriso's ISO %s", async (_name, options, expected) => {
    const path = join(directory(), "image.iso");
    const tree = join(directory(), "tree");
    await mkdir(tree);
    await writeFile(join(tree, "boot.img"), new Uint8Array(MIB));
    await run(
      "xorriso",
      "-report_about",
      "WARNING",
      "-as",
      "mkisofs",
      "-quiet",
      "-V",
      "SOME DISC",
      "-o",
      path,
      ...options.map((option) => option === "BOOT" ? join(tree, "boot.img") : option),
      tree,
    );
    expect((await recognise(path, recogniseIso)).content).toEqual({
      kind: "iso",
      volumeId: "SOME DISC",
      hasUdf: false,
      hasBiosBoot: false,
      unseen: null,
      ...expected,
    });
  });

  it("HD16 takes a disk for none", async () => {
    expect((await recognise(await makeGuestPart("disk-uefi"), recogniseIso)).content).toEqual({
      kind: "not-an-iso",
      why: "it has no volume descriptor of ISO 9660 or UDF",
    });
  });
});

describe("recogniseInitramfs on real files", () => {
  it.each<[GuestPartKind, boolean]>([["initramfs", true], ["kernel", false], ["rootfs-ext4", false]])(
    "tells of our guest's %s: %s",
    async (kind, expected) => {
      const { content } = await recognise(await makeGuestPart(kind), recogniseInitramfs);
      expect(content.isInitramfs).toBe(expected);
    },
  );

  it("HD18 tells cpio's formats apart", async () => {
    const isInitramfs: Record<string, boolean> = {};
    for (const format of ["newc", "crc", "odc", "bin"]) {
      const path = join(directory(), format);
      await promisify(execFile)("sh", ["-c", `echo . | cpio --quiet -o -H ${format} -F "$1"`, "sh", path]);
      isInitramfs[format] = (await recognise(path, recogniseInitramfs)).content.isInitramfs;
    }
    expect(isInitramfs).toEqual({ newc: true, crc: true, odc: false, bin: false });
  });
});
