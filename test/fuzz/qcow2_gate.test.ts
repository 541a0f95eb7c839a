import { execFile } from "node:child_process";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { expect, it } from "vitest";
import { z } from "zod";
import { type ByteWindow, readPart } from "../../src/boot/byte_window.ts";
import { HEAD_BYTES } from "../../src/boot/disk_content.ts";
import { type JudgedDisk, judgeDisk } from "../../src/boot/judge_disk.ts";
import { type Qcow2Header, readQcow2Header } from "../../src/boot/qcow2_header.ts";
import { qcow2Window } from "../../src/boot/qcow2_window.ts";
import { ShimError } from "../../src/errors.ts";
import { bytesWith, extDisk, gptDisk, LINUX_GUID, mbrDisk } from "../support/disk_bytes.ts";
import { FUZZ_RUNS } from "../support/fuzz_runs.ts";
import { anyChanged } from "../support/hostile_bytes.ts";
import { qcow2File } from "../support/qcow2_bytes.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
/** Each run starts a program or two; the long lane has 20,000 of its 50,000. */
const RUNS = Math.ceil(FUZZ_RUNS * 0.4);
/** What guest data a run compares; larger disks are not converted. */
const MAX_COMPARED_BYTES = 4 * 1024 * 1024;

const noise = Uint8Array.from({ length: 90_000 }, (_, i) => (i * 2654435761) >>> 13);
const FILES = [
  qcow2File({ clusterBits: 9, disk: noise }),
  qcow2File({ clusterBits: 12, disk: noise }),
  qcow2File({ clusterBits: 12, disk: noise, version: 2 }),
  qcow2File({ clusterBits: 12, disk: noise, form: "packed" }),
  qcow2File({ clusterBits: 12, disk: noise, form: "packed", compression: "zstd" }),
  qcow2File({ clusterBits: 12, disk: noise, form: "zero" }),
];

const KIB = 1024;
const VMDK_TEXT = [
  ...[
    "# Disk DescriptorFile",
    "version=1",
    "CID=fffffffe",
    "parentCID=ffffffff",
    'createType="monolithicFlat"',
  ],
  'RW 8 FLAT "/etc/passwd" 0',
];
/** What is raw, and beginnings and ends that some reader takes for another format, which may name other files. */
const OTHERS = [
  mbrDisk([{ type: 0x83, firstSector: 2048 }], { sizeBytes: 64 * KIB }),
  gptDisk([LINUX_GUID]),
  extDisk({}, 128 * KIB),
  noise,
  bytesWith(4 * KIB, { 0: VMDK_TEXT.join("\n") }),
  bytesWith(4 * KIB, { 0: VMDK_TEXT.slice(1).join("\r\n") }),
  bytesWith(4 * KIB, { 0: ["#", "", "# x", ...VMDK_TEXT.slice(1)].join("\n") }),
  bytesWith(64 * KIB, { 0: "KDMV\x01\0\0\0\x03" }),
  bytesWith(64 * KIB, { 0: "COWD\x01\0\0\0\x03" }),
  bytesWith(64 * KIB, { 0: "QED\0", 4: [0, 0, 1, 0, 4], 12: [1], 16: [1], 40: "/etc/passwd" }),
  bytesWith(64 * KIB, { 0: "QFI\xfb\0\0\0\x01" }),
  bytesWith(64 * KIB, { 0: "<<< QEMU VM Virtual Disk Image >>>\n", 64: [0x7f, 0x10, 0xda, 0xbe, 1, 0, 1] }),
  bytesWith(64 * KIB, { 0: "vhdxfile" }),
  bytesWith(64 * KIB, { 0: "LUKS\xba\xbe\0\x01" }),
  bytesWith(64 * KIB, { 0: "WithoutFreeSpace", 16: [2] }),
  bytesWith(64 * KIB, { 0: "Bochs Virtual HD Image\0", 32: "Redolog", 48: "Growing", 64: [0, 0, 2] }),
  bytesWith(64 * KIB, { 0: "#!/bin/sh\n#V2.0 Format\nmodprobe cloop" }),
  bytesWith(64 * KIB, { [64 * KIB - 512]: "conectix" }),
  bytesWith(64 * KIB, { [64 * KIB - 511]: "conectix" }),
  bytesWith(64 * KIB, { [64 * KIB - 1024]: "KDMV" }),
];

/** What must not be there. */
const absent = z.undefined().optional();

const infoJson = z.object({
  "virtual-size": z.number(),
  "cluster-size": z.number(),
  "backing-filename": absent,
  "encrypted": z.literal(false).optional(),
  "snapshots": absent,
  "format-specific": z.object({
    data: z.object({
      "data-file": absent,
      "bitmaps": absent,
      "encrypt": absent,
      "corrupt": z.literal(false).optional(),
      "extended-l2": z.literal(false).optional(),
      "compression-type": z.enum(["zlib", "zstd"]).optional(),
    }),
  }),
});

/** qemu-img as the product runs it: with the format said, and under limits. */
async function qemuImg(...args: readonly string[]): Promise<string> {
  const limits = ["--as=1073741824", "--cpu=10", "--fsize=268435456", "--core=0"];
  return (await promisify(execFile)("prlimit", [...limits, "qemu-img", ...args], { timeout: 30_000 })).stdout;
}

async function wholeFile(window: ByteWindow, path: string): Promise<Uint8Array> {
  const bytes = await window.read(0, window.sizeBytes);
  await writeFile(path, bytes);
  return bytes;
}

async function letPass(window: ByteWindow): Promise<JudgedDisk | undefined> {
  try {
    return await judgeDisk(window, { mediaType: "application/vnd.ironcore.image.rootfs" });
  } catch (error) {
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}

it(
  "qemu-img opens what the gate lets pass, and finds in it what the gate found and nothing else",
  async () => {
    let passed = 0;
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(anyChanged(FILES), async (window) => {
        const path = join(directory(), "image");
        const bytes = await wholeFile(window, path);
        // What the gate refuses is never given to qemu-img, here neither; nor is what was seen in part.
        const judged = bytes.length === window.sizeBytes ? await letPass(window) : undefined;
        if (!judged) return;
        if (judged.format === "raw") return await requireRaw(path, judged);
        const header = readQcow2Header(await readPart(window, 0, HEAD_BYTES), window.sizeBytes);
        if (!header) throw new Error("A disk that was judged whole has no header");
        passed++;
        const info = infoJson.parse(JSON.parse(await qemuImg("info", "-f", "qcow2", "--output=json", path)));
        expect([info["virtual-size"], info["cluster-size"]]).toEqual([
          judged.virtualSizeBytes,
          2 ** header.clusterBits,
        ]);
        if (await isSame(window, { header, path })) compared++;
      }),
      { numRuns: RUNS },
    );
    // A property that never gets to its point says nothing.
    expect(passed).toBeGreaterThan(RUNS / 10);
    expect(compared).toBeGreaterThan(RUNS / 20);
  },
  3_600_000,
);

it(
  "what the gate calls raw is nothing else to a qemu-img that guesses",
  async () => {
    let passed = 0;
    await fc.assert(
      fc.asyncProperty(anyChanged(OTHERS), async (window) => {
        const path = join(directory(), "image");
        const bytes = await wholeFile(window, path);
        const judged = bytes.length === window.sizeBytes ? await letPass(window) : undefined;
        if (judged?.format !== "raw") return;
        passed++;
        await requireRaw(path, judged);
      }),
      { numRuns: RUNS },
    );
    expect(passed).toBeGreaterThan(RUNS / 20);
  },
  3_600_000,
);

/** No `-f`: a program that trusts the bytes must not be led to another file either. */
async function requireRaw(path: string, { virtualSizeBytes }: JudgedDisk): Promise<void> {
  const guessed = JSON.parse(await qemuImg("info", "--output=json", path));
  // qemu-img counts whole sectors.
  const sizeBytes = Math.ceil(virtualSizeBytes / 512) * 512;
  expect(guessed).toMatchObject({ format: "raw", "virtual-size": sizeBytes });
}

/** Whether the guest's first bytes could be read by both; they must be equal then. */
async function isSame(
  window: ByteWindow,
  { header, path }: { header: Qcow2Header; path: string },
): Promise<boolean> {
  if (header.virtualSizeBytes > MAX_COMPARED_BYTES) return false;
  const disk = qcow2Window(window, header, { cut: "is cut" });
  const seen = await disk.read(0, HEAD_BYTES);
  if (disk.obstacle() !== undefined) return false;
  const raw = join(directory(), "raw");
  try {
    await qemuImg("convert", "-f", "qcow2", "-O", "raw", path, raw);
  } catch {
    // Something behind the first 64 KiB is broken, which only a whole conversion finds.
    return false;
  }
  const file = await open(raw);
  try {
    const expected = Buffer.alloc(seen.length);
    await file.read(expected, 0, expected.length, 0);
    expect(expected.equals(seen)).toBe(true);
  } finally {
    await file.close();
  }
  return true;
}

it("the files that are changed are sound ones", async () => {
  for (const file of FILES) {
    const path = join(directory(), "image");
    await writeFile(path, file);
    await qemuImg("convert", "-f", "qcow2", "-O", "raw", path, join(directory(), "raw"));
    const raw = await readFile(join(directory(), "raw"));
    const isZero = file === FILES.at(-1);
    expect(raw.subarray(0, noise.length).equals(isZero ? new Uint8Array(noise.length) : noise)).toBe(true);
  }
});
