import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ByteWindow } from "../../../src/boot/byte_window.ts";
import { recogniseDisk } from "../../../src/boot/disk_content.ts";
import { PACKING_HEAD_BYTES, recognisePacking } from "../../../src/boot/disk_packing.ts";
import { recogniseInitramfs } from "../../../src/boot/initramfs_content.ts";
import { recogniseIso } from "../../../src/boot/iso_content.ts";
import { judgeDisk } from "../../../src/boot/judge_disk.ts";
import { recogniseKernel } from "../../../src/boot/kernel_content.ts";
import { recogniseUki } from "../../../src/boot/uki_content.ts";
import { ShimError } from "../../../src/errors.ts";
import {
  arm64Image,
  bzImage,
  efiProgram,
  ESP_GUID,
  extDisk,
  gptDisk,
  mbrDisk,
} from "../../support/disk_bytes.ts";
import { FUZZ_RUNS } from "../../support/fuzz_runs.ts";
import { anyChanged, anyNoise } from "../../support/hostile_bytes.ts";
import { isoImage } from "../../support/iso_bytes.ts";
import { qcow2File } from "../../support/qcow2_bytes.ts";
import { tarOf } from "../../support/tar_bytes.ts";
import { watched } from "../../support/watched_window.ts";

const KIB = 1024;
const DISK = gptDisk([ESP_GUID]).slice(0, 48 * KIB);
const DISKS = [
  DISK,
  gptDisk([ESP_GUID], { entriesSector: 200n }).slice(0, 140 * KIB),
  mbrDisk([{ type: 0xef, firstSector: 1 }], { sizeBytes: 4 * KIB }),
  extDisk({}, 4 * KIB),
];
const QCOW2S = [
  qcow2File({ clusterBits: 9, disk: DISK }),
  qcow2File({ clusterBits: 12, disk: DISK }),
  qcow2File({ clusterBits: 12, disk: DISK, version: 2 }),
  qcow2File({ clusterBits: 12, disk: DISK, form: "packed" }),
  qcow2File({ clusterBits: 12, disk: DISK, form: "packed", compression: "zstd" }),
];
const UKI = efiProgram(0x8664, {
  sections: [".linux", ".osrel", ".cmdline", ".uname"].map((name) => ({ name, bytes: "console=ttyS0" })),
});
const PACKED = [gzipSync(DISK), zstdCompressSync(DISK), tarOf({ name: "disk.raw", bytes: DISK })];
const KERNELS = [bzImage(), arm64Image(), gzipSync(arm64Image()), efiProgram(0x8664), UKI];

const PROPERTIES: readonly {
  readonly name: string;
  readonly recognise: (file: ByteWindow) => Promise<unknown>;
  readonly files: readonly Uint8Array[];
  readonly beginnings: readonly string[];
  readonly maxReadBytes: number;
}[] = [
  {
    name: "recogniseDisk",
    recognise: recogniseDisk,
    files: [...DISKS, ...QCOW2S],
    beginnings: ["QFI\xfb", "KDMV", "# Disk DescriptorFile\n", "\xeb\x3c\x90"],
    maxReadBytes: (65 + 1 + 128) * KIB,
  },
  {
    name: "judgeDisk",
    recognise: (file) => judgeDisk(file, { mediaType: "application/vnd.ironcore.image.rootfs" }),
    files: [...DISKS, ...QCOW2S],
    beginnings: ["QFI\xfb", "QFI\xfb\0\0\0\x02", "QFI\xfb\0\0\0\x03"],
    maxReadBytes: 1024 * KIB,
  },
  {
    name: "recognisePacking",
    recognise: async (file) =>
      recognisePacking(
        "application/vnd.ironcore.image.rootfs",
        await file.read(0, Math.min(file.sizeBytes, PACKING_HEAD_BYTES)),
      ),
    files: PACKED,
    beginnings: ["\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "\x50\x2a\x4d\x18", "BZh91AY&SY", "\xfd7zXZ\0"],
    maxReadBytes: 512,
  },
  {
    name: "recogniseKernel",
    recognise: recogniseKernel,
    files: KERNELS,
    beginnings: ["MZ", "MZ\0\0zimg", "\x1f\x8b\x08\0"],
    maxReadBytes: 10 * KIB,
  },
  {
    name: "recogniseInitramfs",
    recognise: recogniseInitramfs,
    files: KERNELS,
    beginnings: ["070701", "\x1f\x8b"],
    maxReadBytes: 4 * KIB,
  },
  {
    name: "recogniseUki",
    recognise: recogniseUki,
    files: KERNELS,
    beginnings: ["MZ"],
    maxReadBytes: (5 + 5 + 3 * 64) * KIB,
  },
  {
    name: "recogniseIso",
    recognise: recogniseIso,
    files: [isoImage({ entries: [{ platform: 0 }, { platform: 0xef }], hasUdf: true }).slice(0, 48 * KIB)],
    beginnings: [
      "\0".repeat(32768) + "\x01CD001\x01",
      "\0".repeat(32768) + "\x01CD001" + "\0".repeat(2042) + "\0CD001\x01EL TORITO SPECIFICATION",
    ],
    maxReadBytes: 66 * KIB,
  },
];

describe.each(PROPERTIES)("$name, on any bytes,", ({ recognise, files, beginnings, maxReadBytes }) => {
  it.each([["changed", anyChanged(files)], ["random", anyNoise(beginnings)]])(
    "HD17 HD18 HD19 gives a finding or a refusal, and reads what it says: %s",
    async (_name, anyFile) => {
      await fc.assert(
        fc.asyncProperty(anyFile, async (file) => {
          const { window, readBytes } = watched(file);
          await recognise(window).catch((error: unknown) => {
            if (!(error instanceof ShimError)) throw error;
            expect(["FORMAT_UNSAFE", "FORMAT_MISMATCH", "LIMIT_EXCEEDED"]).toContain(error.code);
          });
          expect(readBytes()).toBeLessThanOrEqual(maxReadBytes);
        }),
        { numRuns: FUZZ_RUNS },
      );
    },
    600_000,
  );
});

describe("what is unchanged", () => {
  it("is what the properties mean to change", async () => {
    for (const file of [...DISKS, ...QCOW2S]) {
      const { content } = await judgeDisk(
        { sizeBytes: file.length, read: (at, length) => Promise.resolve(file.subarray(at, at + length)) },
        { mediaType: "application/vnd.ironcore.image.rootfs" },
      );
      expect(["partitioned", "file-system"]).toContain(content.kind);
    }
  });
});
