import { execFile } from "node:child_process";
import { open, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { type ByteWindow, windowOf } from "../../src/boot/byte_window.ts";
import { type DiskContent, recogniseDisk } from "../../src/boot/disk_content.ts";
import { isInitramfs, type KernelContent, recogniseKernel } from "../../src/boot/kernel_content.ts";
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

async function kernelIn(path: string): Promise<KernelContent> {
  const { content, readBytes } = await recognise(path, recogniseKernel);
  expect(readBytes).toBeLessThanOrEqual(68 * 1024);
  return content;
}

describe("recogniseDisk on what real tools make", () => {
  it.each<[string, readonly string[], DiskContent]>([
    ["an EFI system partition", ["--new=1:0:+4M", "--typecode=1:ef00", "--new=2:0:0", "--typecode=2:8300"], {
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: true,
      hasBiosBootCode: false,
    }],
    ["an EFI system partition as the last of 128", ["--new=128:0:0", "--typecode=128:ef00"], {
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: true,
      hasBiosBootCode: false,
    }],
    ["a Linux partition only", ["--new=1:0:0", "--typecode=1:8300"], {
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: false,
      hasBiosBootCode: false,
    }],
    ["no partitions", [], {
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: false,
      hasBiosBootCode: false,
    }],
  ])("tells sgdisk's table with %s", async (_name, options, expected) => {
    const path = await emptyFile();
    await run("sgdisk", "--clear", ...options, path);
    expect(await diskIn(path)).toEqual(expected);
  });

  it("tells sgdisk's hybrid MBR, and the MBR that it leaves of a GPT", async () => {
    const path = await emptyFile();
    await run("sgdisk", "--clear", "--new=1:0:+4M", "--typecode=1:ef00", "--hybrid=1", path);
    expect(await diskIn(path)).toEqual({
      kind: "partitioned",
      table: "gpt",
      hasEfiSystemPartition: true,
      hasBiosBootCode: false,
    });
    await run("sgdisk", "--gpttombr=1", path);
    expect(await diskIn(path)).toEqual({
      kind: "partitioned",
      table: "mbr",
      hasEfiSystemPartition: true,
      hasBiosBootCode: false,
    });
  });

  it.each(["ext2", "ext3", "ext4"])("tells %s by mke2fs", async (type) => {
    const path = await emptyFile();
    await run("mke2fs", "-q", "-F", "-t", type, path);
    expect(await diskIn(path)).toEqual({ kind: "file-system", name: "ext" });
  });

  it.each(["12", "16", "32"])("takes FAT%s by mkfs.fat for no partitioned disk", async (bits) => {
    const path = await emptyFile(bits === "32" ? 64 * MIB : 16 * MIB);
    await run("mkfs.fat", "-F", bits, path);
    expect(await diskIn(path)).toEqual({ kind: "unknown" });
  });

  it.each(["qcow2", "qed", "vmdk", "vdi", "vhdx", "parallels"])(
    "HD08 tells qemu-img's %s",
    async (format) => {
      const path = join(directory(), "image");
      await run("qemu-img", "create", "-q", "-f", format, path, "16M");
      expect(await diskIn(path)).toEqual({ kind: "container", name: format });
    },
  );

  it.each<[string, readonly string[]]>([
    ["vhd", ["-f", "vpc", "-o", "subformat=dynamic"]],
    ["vmdk", ["-f", "vmdk", "-o", "subformat=monolithicFlat"]],
  ])("HD08 HD10 tells qemu-img's %s of another kind", async (name, options) => {
    const path = join(directory(), "image");
    await run("qemu-img", "create", "-q", ...options, path, "16M");
    expect(await diskIn(path)).toEqual({ kind: "container", name });
  });

  it("tells a disk packed by gzip", async () => {
    const path = await emptyFile(MIB);
    await run("gzip", path);
    expect(await diskIn(`${path}.gz`)).toEqual({ kind: "container", name: "gzip" });
  });

  it.each<[GuestPartKind, DiskContent]>([
    ["disk-uefi", { kind: "partitioned", table: "gpt", hasEfiSystemPartition: true, hasBiosBootCode: false }],
    ["disk-bios", { kind: "partitioned", table: "mbr", hasEfiSystemPartition: false, hasBiosBootCode: true }],
    ["rootfs-ext4", { kind: "file-system", name: "ext" }],
    ["rootfs-squashfs", { kind: "file-system", name: "squashfs" }],
    ["kernel", { kind: "unknown" }],
    ["initramfs", { kind: "container", name: "gzip" }],
  ])("tells our guest's %s", async (kind, expected) => {
    expect(await diskIn(await makeGuestPart(kind))).toEqual(expected);
  });
});

describe("recogniseKernel on real files", () => {
  it.each<[GuestPartKind, KernelContent]>([
    ["kernel", { kind: "kernel", format: "bzImage", architecture: "amd64" }],
    ["uki", { kind: "kernel", format: "EFI/PE", architecture: "amd64" }],
    ["initramfs", { kind: "not-a-kernel", why: "it has no bzImage, arm64 Image or EFI/PE header" }],
    ["rootfs-ext4", { kind: "not-a-kernel", why: "it has no bzImage, arm64 Image or EFI/PE header" }],
  ])("tells our guest's %s", async (kind, expected) => {
    expect(await kernelIn(await makeGuestPart(kind))).toEqual(expected);
  });

  it("tells the guest kernel from its first 4 KiB", async () => {
    const kernel = await readFile(await makeGuestPart("kernel"));
    const head = windowOf(kernel.subarray(0, 4096), kernel.length);
    expect(await recogniseKernel(head)).toEqual({ kind: "kernel", format: "bzImage", architecture: "amd64" });
  });
});

describe("isInitramfs on real files", () => {
  it.each<[GuestPartKind, boolean]>([["initramfs", true], ["kernel", false], ["rootfs-ext4", false]])(
    "tells of our guest's %s: %s",
    async (kind, expected) => {
      expect((await recognise(await makeGuestPart(kind), isInitramfs)).content).toBe(expected);
    },
  );
});
