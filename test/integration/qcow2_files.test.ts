import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { windowOf } from "../../src/boot/byte_window.ts";
import { HEAD_BYTES, recogniseDisk } from "../../src/boot/disk_content.ts";
import { judgeDisk } from "../../src/boot/judge_disk.ts";
import { failureOf } from "../support/failures.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { recogniseFile, runTool } from "../support/real_files.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const MIB = 1024 * 1024;
const ROOTFS = { mediaType: "application/vnd.ironcore.image.rootfs" };
const judge = async (path: string) => (await recogniseFile(path, (file) => judgeDisk(file, ROOTFS))).content;

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
    await runTool("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", ...options, disk, path]);
    const { content: judged, readBytes } = await recogniseFile(path, (file) => judgeDisk(file, ROOTFS));
    expect(judged).toEqual({
      format: "qcow2",
      virtualSizeBytes: (await readFile(disk)).length,
      content: (await recogniseFile(disk, recogniseDisk)).content,
    });
    expect(readBytes).toBeLessThan(MIB);
  });

  it("takes one of a bare file system, one that was grown, and one of zeros", async () => {
    const path = join(directory(), "image");
    await runTool("qemu-img", [
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      await makeGuestPart("rootfs-ext4"),
      path,
    ]);
    expect((await judge(path)).content).toEqual({ kind: "file-system", name: "ext4" });
    await runTool("qemu-img", ["resize", "-q", "-f", "qcow2", path, "3T"]);
    expect(await judge(path)).toEqual({
      format: "qcow2",
      virtualSizeBytes: 3 * 1024 ** 4,
      content: { kind: "file-system", name: "ext4" },
    });
    await runTool("qemu-img", ["create", "-q", "-f", "qcow2", path, "1G"]);
    expect((await judge(path)).content).toEqual({
      kind: "unknown",
      why: "begins with zeros only",
      isUnseen: false,
    });
  });

  it("says what a qcow2 file is by its first 64 KiB, and that more cannot be told from them", async () => {
    const path = join(directory(), "image");
    await runTool("qemu-img", [
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      await makeGuestPart("disk-uefi"),
      path,
    ]);
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
    await runTool("qemu-img", ["create", "-q", "-f", "qcow2", ...options, path, "1M"], directory());
    const { code, details } = await failureOf(judge(path));
    expect([code, details["reason"]]).toEqual(["FORMAT_UNSAFE", reason]);
  });

  it("HD07 refuses one with a snapshot, and takes it again without", async () => {
    const path = join(directory(), "image");
    await runTool("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"]);
    await runTool("qemu-img", ["snapshot", "-q", "-c", "one", path]);
    expect((await failureOf(judge(path))).details["reason"]).toBe("snapshots");
    await runTool("qemu-img", ["snapshot", "-q", "-d", "one", path]);
    expect((await judge(path)).format).toBe("qcow2");
  });

  it("HD07 refuses one with a bitmap", async () => {
    const path = join(directory(), "image");
    await runTool("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"]);
    await runTool("qemu-img", ["bitmap", "-f", "qcow2", "--add", path, "changes"]);
    expect((await failureOf(judge(path))).details["reason"]).toBe("bitmaps");
  });

  it("HD01 takes one whose backing file was taken away again", async () => {
    const path = join(directory(), "image");
    await writeFile(join(directory(), "base.raw"), new Uint8Array(MIB));
    await runTool("qemu-img", [
      "create",
      "-q",
      "-f",
      "qcow2",
      "-b",
      join(directory(), "base.raw"),
      "-F",
      "raw",
      path,
    ]);
    await runTool("qemu-img", ["rebase", "-f", "qcow2", "-u", "-b", "", path]);
    expect((await judge(path)).format).toBe("qcow2");
  });
});
