import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { readPart, windowOf } from "../../../src/boot/byte_window.ts";
import { HEAD_BYTES, recogniseDisk } from "../../../src/boot/disk_content.ts";
import { judgeDisk } from "../../../src/boot/judge_disk.ts";
import { readQcow2Header } from "../../../src/boot/qcow2_header.ts";
import { qcow2Window } from "../../../src/boot/qcow2_window.ts";
import { bytesWith, ESP_GUID, extDisk, gptDisk, LINUX_GUID } from "../../support/disk_bytes.ts";
import { rejectionOf } from "../../support/failures.ts";
import { type Qcow2Changes, qcow2File, u32, u64 } from "../../support/qcow2_bytes.ts";
import { watched } from "../../support/watched_window.ts";

const MIB = 1024 * 1024;
const ROOTFS = { mediaType: "application/vnd.ironcore.image.rootfs" };
const DISK = gptDisk([ESP_GUID, LINUX_GUID]);

describe("judgeDisk", () => {
  it.each([["a partitioned disk", DISK], ["a file system", extDisk()], ["zeros", new Uint8Array(MIB)]])(
    "takes %s as raw bytes",
    async (_name, disk) => {
      expect(await judgeDisk(windowOf(disk), ROOTFS)).toEqual({
        format: "raw",
        virtualSizeBytes: MIB,
        content: await recogniseDisk(windowOf(disk)),
      });
    },
  );

  it.each<[string, Qcow2Changes]>([
    ["as it is", {}],
    ["of version 2", { version: 2 }],
    ["in clusters of 512 bytes", { clusterBits: 9 }],
    ["in clusters of 2 MiB", { clusterBits: 21 }],
    ["compressed", { form: "packed" }],
    ["compressed, of version 2", { form: "packed", version: 2 }],
    ["compressed by zstd", { form: "packed", compression: "zstd" }],
    ["compressed in clusters of 512 bytes", { form: "packed", clusterBits: 9 }],
    ["compressed in clusters of 2 MiB", { form: "packed", clusterBits: 21 }],
    ["compressed by zstd in clusters of 512 bytes", { form: "packed", compression: "zstd", clusterBits: 9 }],
    ["compressed by zstd in clusters of 2 MiB", { form: "packed", compression: "zstd", clusterBits: 21 }],
    ["with names of features", { extensions: [[0x6803f857, new Uint8Array(48 * 6)]] }],
    ["with a header of 104 bytes", { patch: { 100: u32(104) } }],
    ["with lazy refcounts", { patch: { 80: u64(1n) } }],
    ["with refcounts of 64 bits", { patch: { 96: u32(6) } }],
  ])("takes a qcow2 file %s, and sees the disk in it", async (_name, changes) => {
    const { window, readBytes } = watched(windowOf(qcow2File({ disk: DISK, ...changes })));
    expect(await judgeDisk(window, ROOTFS)).toEqual({
      format: "qcow2",
      virtualSizeBytes: Math.max(MIB, 2 ** (changes.clusterBits ?? 0)),
      content: await recogniseDisk(windowOf(DISK)),
    });
    expect(readBytes()).toBeLessThan(MIB);
  });

  it("takes 16 TiB of virtual size, and not a sector more", async () => {
    const changes = { clusterBits: 21, virtualSizeBytes: 2n ** 44n };
    expect(await judgeDisk(windowOf(qcow2File(changes)), ROOTFS)).toEqual({
      format: "qcow2",
      virtualSizeBytes: 2 ** 44,
      content: { kind: "unknown", why: "begins with zeros only", isUnseen: false },
    });
  });

  it.each<[string, Qcow2Changes, string]>([
    [
      "whose L1 entry points beyond the file",
      { patch: { [3 * 65536]: u64(2n ** 50n) } },
      "a table does not lie at a cluster of the file",
    ],
    [
      "whose L1 entry points beyond any file",
      { patch: { [3 * 65536]: u64(2n ** 64n - 1n) } },
      "a table does not lie at a cluster of the file",
    ],
    [
      "whose L1 entry points between clusters",
      { patch: { [3 * 65536]: u64(4n * 65536n + 512n) } },
      "a table does not lie at a cluster of the file",
    ],
    [
      "whose L2 table is cut off",
      { sizeBytes: 4 * 65536 + 4096 },
      "a table does not lie at a cluster of the file",
    ],
    [
      "whose first cluster lies beyond the file",
      { patch: { [4 * 65536]: u64(2n ** 50n) } },
      "one does not lie at a cluster of the file",
    ],
    [
      "whose first cluster lies between clusters",
      { patch: { [4 * 65536]: u64(5n * 65536n + 512n) } },
      "one does not lie at a cluster of the file",
    ],
    ["whose compressed cluster is noise", {
      form: "packed",
      patch: { [5 * 65536]: [0xff, 0xff, 0xff, 0xff] },
    }, "one is compressed and cannot be unpacked"],
    [
      "whose compressed cluster lies beyond the file",
      { patch: { [4 * 65536]: u64(2n ** 62n | 2n ** 40n) } },
      "one is compressed and cannot be unpacked",
    ],
  ])("takes a qcow2 file %s, and says that it cannot see the disk", async (_name, changes, why) => {
    const { window, readBytes } = watched(windowOf(qcow2File({ disk: DISK, ...changes })));
    expect((await judgeDisk(window, ROOTFS)).content).toEqual({
      kind: "unknown",
      why: `holds clusters that cannot be read: ${why}`,
      isUnseen: false,
    });
    expect(readBytes()).toBeLessThan(MIB);
  });

  it.each<[number, string]>([
    [0, "cannot be told without its bytes"],
    [256, "is a qcow2 disk, and what it holds cannot be told from its first 256 bytes"],
    [4096, "is a qcow2 disk, and what it holds cannot be told from its first 4 KiB"],
    [HEAD_BYTES, "is a qcow2 disk, and what it holds cannot be told from its first 64 KiB"],
  ])("says of a qcow2 file of which it sees %i bytes what it can", async (visibleBytes, why) => {
    const file = qcow2File({ disk: DISK });
    const { content } = await judgeDisk(windowOf(file.slice(0, visibleBytes), file.length), ROOTFS);
    expect(content).toEqual({ kind: "unknown", why, isUnseen: true });
  });

  it.each([
    ["application/io.gardenlinux.image.archive.format.raw", qcow2File(), "raw", "qcow2"],
    ["application/io.gardenlinux.image.format.qcow2", DISK, "qcow2", "raw"],
    ["application/vnd.ironcore.image.rootfs+RAW", qcow2File(), "raw", "qcow2"],
  ])("HD08 refuses what is not what its media type %s says", async (mediaType, disk, says, is) => {
    expect(await rejectionOf(judgeDisk(windowOf(disk), { mediaType }))).toEqual({
      code: "FORMAT_MISMATCH",
      message:
        `Cannot use the rootfs layer as a disk: its media type "${mediaType}" says ${says}, it is ${is}`,
      details: { remedy: "publish the image with a raw disk, or a qcow2 file that stands alone" },
    });
  });

  it.each([
    ["application/io.gardenlinux.image.archive.format.raw", DISK, "raw"],
    ["application/io.gardenlinux.image.format.qcow2", qcow2File(), "qcow2"],
    ["application/vnd.ironcore.image.disk.img", qcow2File(), "qcow2"],
  ])("takes what its media type %s says", async (mediaType, disk, format) => {
    expect((await judgeDisk(windowOf(disk), { mediaType })).format).toBe(format);
  });

  it("does not hold a media type against a disk that it does not see", async () => {
    const window = windowOf(new Uint8Array(), MIB);
    expect((await judgeDisk(window, { mediaType: "application/x-qcow2" })).content.kind).toBe("unknown");
  });

  it("names the layer it was told of", async () => {
    const { message } = await rejectionOf(
      judgeDisk(windowOf(bytesWith(100)), { ...ROOTFS, layer: "squashfs" }),
    );
    expect(message).toBe(
      "Cannot use the squashfs layer as a disk: it has 100 bytes, must have one sector of 512 bytes at least",
    );
  });
});

describe("qcow2Window", () => {
  const noise = randomBytes(300_000);

  it.each<[string, Qcow2Changes]>([
    ["plain", {}],
    ["plain in small clusters", { clusterBits: 9 }],
    ["of zeros", { form: "zero" }],
    ["compressed", { form: "packed", clusterBits: 12 }],
    ["compressed by zstd", { form: "packed", clusterBits: 12, compression: "zstd" }],
  ])("reads any part of a disk whose clusters are %s", async (_name, changes) => {
    const file = windowOf(qcow2File({ disk: noise, ...changes }));
    const header = readQcow2Header(await readPart(file, 0, HEAD_BYTES), file.sizeBytes);
    if (!header) throw new Error("The header was not seen");
    const disk = qcow2Window(file, header, { cut: "is cut" });
    const whole = changes.form === "zero" ? new Uint8Array(MIB) : bytesWith(MIB, { 0: [...noise] });
    for (
      const [offset, length] of [[0, 65608], [511, 2], [4095, 8194], [299_000, 3000], [MIB - 10, 100], [
        MIB,
        1,
      ]]
    ) {
      const expected = whole.subarray(offset, (offset ?? 0) + (length ?? 0));
      expect(Buffer.from(await disk.read(offset ?? 0, length ?? 0)).equals(expected)).toBe(true);
    }
    expect(disk.obstacle()).toBeUndefined();
  });

  it("reads what is missing of the last cluster as zeros", async () => {
    const whole = qcow2File({ disk: new Uint8Array(65536).fill(7) });
    const file = windowOf(whole.slice(0, whole.length - 65536 + 1000));
    const header = readQcow2Header(await readPart(file, 0, HEAD_BYTES), file.sizeBytes);
    if (!header) throw new Error("The header was not seen");
    expect([...await qcow2Window(file, header, { cut: "" }).read(998, 4)]).toEqual([7, 7, 0, 0]);
  });
});
