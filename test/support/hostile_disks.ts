/** Disks that nobody may trust. */
import type { ErrorCode } from "../../src/errors.ts";
import { bytesWith, ESP_GUID, gptDisk } from "./disk_bytes.ts";
import { type Qcow2Changes, qcow2File, u32, u64 } from "./qcow2_bytes.ts";

const MIB = 1024 * 1024;

export type HostileDisk = readonly [
  name: string,
  disk: Uint8Array | Qcow2Changes,
  code: ErrorCode,
  reason: string | undefined,
];

export const backing = (name: string): Qcow2Changes => ({
  patch: { 8: u64(512n), 16: u32(name.length), 512: name },
});
const feature = (upper: number, lower: number): Qcow2Changes => ({
  patch: { 72: u32(upper), 76: u32(lower) },
});
const patched = (patch: Qcow2Changes["patch"]): Qcow2Changes => ({ patch: patch ?? {} });
export const gptWith = (parts: Readonly<Record<number, string>>): Uint8Array => {
  const disk = gptDisk([ESP_GUID]);
  for (const [at, text] of Object.entries(parts)) disk.set(Buffer.from(text, "latin1"), Number(at));
  return disk;
};

/** Every disk that somebody could publish in order to have the host read, write or trust what it should not. */
export const HOSTILE_DISKS: readonly HostileDisk[] = [
  ["HD01 an absolute backing file", backing("/etc/shadow"), "FORMAT_UNSAFE", "backing"],
  ["HD01 a relative backing file", backing("../../base.raw"), "FORMAT_UNSAFE", "backing"],
  [
    "HD01 a backing file in JSON",
    backing('json:{"driver":"raw","file.filename":"/etc/shadow"}'),
    "FORMAT_UNSAFE",
    "backing",
  ],
  ["HD01 a backing file over the network", backing("nbd://127.0.0.1:10809"), "FORMAT_UNSAFE", "backing"],
  [
    "HD01 a backing file's name beyond the file",
    patched({ 8: u64(2n ** 40n), 16: u32(5) }),
    "FORMAT_UNSAFE",
    "backing",
  ],
  [
    "HD01 a backing file's name beyond any file",
    patched({ 8: u64(2n ** 64n - 1n) }),
    "FORMAT_UNSAFE",
    "backing",
  ],
  ["HD01 a backing file of no name", patched({ 8: u64(1n) }), "FORMAT_UNSAFE", "backing"],
  ["HD01 a backing format only", { extensions: [[0xe2792aca, "raw"]] }, "FORMAT_UNSAFE", "backing"],
  ["HD01 a backing file in version 2", { ...backing("/etc/shadow"), version: 2 }, "FORMAT_UNSAFE", "backing"],

  ["HD02 an external data file", feature(0, 4), "FORMAT_UNSAFE", "data-file"],
  [
    "HD02 the name of a data file",
    { extensions: [[0x44415441, "/etc/shadow"]] },
    "FORMAT_UNSAFE",
    "data-file",
  ],
  [
    "HD02 bit and name",
    { ...feature(0, 4), extensions: [[0x44415441, "/etc/shadow"]] },
    "FORMAT_UNSAFE",
    "data-file",
  ],
  [
    "HD02 a data file behind names of features",
    { extensions: [[0x6803f857, "x".repeat(96)], [0x44415441, "a"]] },
    "FORMAT_UNSAFE",
    "data-file",
  ],
  [
    "HD02 a data file in version 2",
    { version: 2, extensions: [[0x44415441, "/etc/shadow"]] },
    "FORMAT_UNSAFE",
    "data-file",
  ],
  ["HD02 a data file that is said to be raw", patched({ 88: u64(2n) }), "FORMAT_UNSAFE", "data-file"],

  ["HD03 the dirty bit", feature(0, 1), "FORMAT_UNSAFE", "feature"],
  ["HD03 the corrupt bit", feature(0, 2), "FORMAT_UNSAFE", "feature"],
  ["HD03 bit 4, extended L2 entries", feature(0, 16), "FORMAT_UNSAFE", "feature"],
  ["HD03 bit 5", feature(0, 32), "FORMAT_UNSAFE", "feature"],
  ["HD03 bit 31", feature(0, 0x80000000), "FORMAT_UNSAFE", "feature"],
  ["HD03 bit 32", feature(1, 0), "FORMAT_UNSAFE", "feature"],
  ["HD03 bit 63", feature(0x80000000, 0), "FORMAT_UNSAFE", "feature"],

  ["HD04 version 0", patched({ 4: u32(0) }), "FORMAT_UNSAFE", "version"],
  ["HD04 version 1, which is another format", patched({ 4: u32(1) }), "FORMAT_UNSAFE", "version"],
  ["HD04 version 4", patched({ 4: u32(4) }), "FORMAT_UNSAFE", "version"],
  ["HD04 version 2^32 - 1", patched({ 4: u32(0xffffffff) }), "FORMAT_UNSAFE", "version"],
  ["HD04 the magic only", bytesWith(MIB, { 0: "QFI\xfb" }), "FORMAT_UNSAFE", "version"],

  ["HD05 no virtual size", patched({ 24: u64(0n) }), "LIMIT_EXCEEDED", "virtual-size"],
  ["HD05 a virtual size of 511 bytes", patched({ 24: u64(511n) }), "LIMIT_EXCEEDED", "virtual-size"],
  [
    "HD05 a virtual size of 16 TiB and a sector",
    patched({ 24: u64(2n ** 44n + 512n) }),
    "LIMIT_EXCEEDED",
    "virtual-size",
  ],
  ["HD05 a virtual size of 1 PiB", patched({ 24: u64(2n ** 50n) }), "LIMIT_EXCEEDED", "virtual-size"],
  ["HD05 a virtual size of 2^63", patched({ 24: u64(2n ** 63n) }), "LIMIT_EXCEEDED", "virtual-size"],

  ["HD06 cluster_bits 0", patched({ 20: u32(0) }), "FORMAT_UNSAFE", "cluster-bits"],
  ["HD06 cluster_bits 8", patched({ 20: u32(8) }), "FORMAT_UNSAFE", "cluster-bits"],
  ["HD06 cluster_bits 22", patched({ 20: u32(22) }), "FORMAT_UNSAFE", "cluster-bits"],
  ["HD06 cluster_bits 63", patched({ 20: u32(63) }), "FORMAT_UNSAFE", "cluster-bits"],
  ["HD06 cluster_bits 2^32 - 1", patched({ 20: u32(0xffffffff) }), "FORMAT_UNSAFE", "cluster-bits"],
  ["HD06 l1_size 0", patched({ 36: u32(0) }), "FORMAT_UNSAFE", "table"],
  ["HD06 l1_size 2^31", patched({ 36: u32(2 ** 31) }), "FORMAT_UNSAFE", "table"],
  ["HD06 an L1 table too small for the size", patched({ 24: u64(2n ** 30n) }), "FORMAT_UNSAFE", "l1-size"],
  ["HD06 refcount_order 7", patched({ 96: u32(7) }), "FORMAT_UNSAFE", "refcount-order"],
  ["HD06 refcount_order 2^32 - 1", patched({ 96: u32(0xffffffff) }), "FORMAT_UNSAFE", "refcount-order"],
  ["HD06 header_length 0", patched({ 100: u32(0) }), "FORMAT_UNSAFE", "header-length"],
  ["HD06 header_length 72", patched({ 100: u32(72) }), "FORMAT_UNSAFE", "header-length"],
  ["HD06 header_length 103", patched({ 100: u32(103) }), "FORMAT_UNSAFE", "header-length"],
  ["HD06 header_length 105", patched({ 100: u32(105) }), "FORMAT_UNSAFE", "header-length"],
  ["HD06 header_length 2^32 - 1", patched({ 100: u32(0xffffffff) }), "FORMAT_UNSAFE", "header-length"],
  ["HD06 an L1 table beyond the file", patched({ 40: u64(2n ** 40n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 an L1 table beyond any file", patched({ 40: u64(2n ** 64n - 65536n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 an L1 table at no cluster", patched({ 40: u64(3n * 65536n + 8n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 an L1 table in the header", patched({ 40: u64(0n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 an L1 table in the refcount table", patched({ 40: u64(65536n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 a refcount table beyond the file", patched({ 48: u64(2n ** 40n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 a refcount table at no cluster", patched({ 48: u64(65537n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 a refcount table in the header", patched({ 48: u64(0n) }), "FORMAT_UNSAFE", "table"],
  ["HD06 no refcount table", patched({ 56: u32(0) }), "FORMAT_UNSAFE", "table"],
  ["HD06 a refcount table of 2^32 - 1 clusters", patched({ 56: u32(0xffffffff) }), "FORMAT_UNSAFE", "table"],
  ["HD06 a file that ends behind its header", { sizeBytes: 65536 }, "FORMAT_UNSAFE", "table"],

  ["HD07 AES encryption", patched({ 32: u32(1) }), "FORMAT_UNSAFE", "encryption"],
  ["HD07 LUKS encryption", patched({ 32: u32(2) }), "FORMAT_UNSAFE", "encryption"],
  ["HD07 unknown encryption", patched({ 32: u32(0xffffffff) }), "FORMAT_UNSAFE", "encryption"],
  ["HD07 a LUKS header", { extensions: [[0x0537be77, new Uint8Array(16)]] }, "FORMAT_UNSAFE", "encryption"],
  ["HD07 a snapshot", patched({ 60: u32(1), 64: u64(65536n) }), "FORMAT_UNSAFE", "snapshots"],
  ["HD07 65,536 snapshots", patched({ 60: u32(65536) }), "FORMAT_UNSAFE", "snapshots"],
  ["HD07 no snapshot, in a table at no cluster", patched({ 64: u64(1n) }), "FORMAT_UNSAFE", "snapshots"],
  [
    "HD07 no snapshot, in a table beyond any file",
    patched({ 64: u64(2n ** 64n - 1n) }),
    "FORMAT_UNSAFE",
    "snapshots",
  ],
  ["an end of extensions that has a length", patched({ 116: u32(8) }), "FORMAT_UNSAFE", "extension"],
  ["HD07 bitmaps", { extensions: [[0x23852875, new Uint8Array(24)]] }, "FORMAT_UNSAFE", "bitmaps"],
  ["an unknown extension", { extensions: [[0x12345678, "x"]] }, "FORMAT_UNSAFE", "extension"],
  [
    "an extension longer than the header",
    patched({ 112: u32(0x6803f857), 116: u32(65536) }),
    "FORMAT_UNSAFE",
    "extension",
  ],
  [
    "an extension of 2^32 - 1 bytes",
    patched({ 112: u32(0x6803f857), 116: u32(0xffffffff) }),
    "FORMAT_UNSAFE",
    "extension",
  ],
  [
    "extensions that fill the header",
    { clusterBits: 9, extensions: [[0x6803f857, new Uint8Array(392)]] },
    "FORMAT_UNSAFE",
    "extension",
  ],
  [
    "a compression type that is unknown",
    { compression: "zstd", patch: { 104: [2] } },
    "FORMAT_UNSAFE",
    "compression",
  ],
  ["a compression type that is not stated", patched({ 104: [1] }), "FORMAT_UNSAFE", "compression"],
  [
    "a stated compression type that is the default",
    { compression: "zstd", patch: { 104: [0] } },
    "FORMAT_UNSAFE",
    "compression",
  ],
  [
    "a stated compression type without its field",
    { compression: "zstd", patch: { 100: u32(104), 104: u64(0n) } },
    "FORMAT_UNSAFE",
    "compression",
  ],
  ["something in the header's padding", patched({ 111: [1] }), "FORMAT_UNSAFE", "compression"],

  ["HD08 qed", bytesWith(MIB, { 0: "QED\0" }), "FORMAT_MISMATCH", undefined],
  ["HD08 vdi", bytesWith(MIB, { 64: "\x7f\x10\xda\xbe" }), "FORMAT_MISMATCH", undefined],
  ["HD08 vhdx", bytesWith(MIB, { 0: "vhdxfile" }), "FORMAT_MISMATCH", undefined],
  ["HD08 a fixed vhd", bytesWith(MIB, { [MIB - 512]: "conectix" }), "FORMAT_MISMATCH", undefined],
  ["HD08 LUKS", bytesWith(MIB, { 0: "LUKS\xba\xbe" }), "FORMAT_MISMATCH", undefined],
  ["HD08 parallels", bytesWith(MIB, { 0: "WithoutFreeSpace" }), "FORMAT_MISMATCH", undefined],
  ["HD08 something compressed", bytesWith(MIB, { 0: "\x1f\x8b\x08" }), "FORMAT_MISMATCH", undefined],
  ["HD08 a vmdk inside a qcow2", { disk: bytesWith(65536, { 0: "KDMV" }) }, "FORMAT_MISMATCH", undefined],
  ["HD08 a qcow2 inside a qcow2", { disk: qcow2File(backing("/etc/shadow")) }, "FORMAT_MISMATCH", undefined],

  ["HD09 a qcow2 in the unused start of an ISO", patched({ 32769: "CD001" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a qcow2 that is a GPT disk", patched({ 512: "EFI PART" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a qcow2 that is a vdi", patched({ 64: "\x7f\x10\xda\xbe" }), "FORMAT_UNSAFE", "ambiguous"],
  [
    "HD09 a qcow2 that ends as a vhd",
    patched({ [5 * 65536 - 512]: "conectix" }),
    "FORMAT_UNSAFE",
    "ambiguous",
  ],
  ["HD09 a GPT disk that ends as a vhd", gptWith({ [MIB - 512]: "conectix" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a GPT disk that ends as a vmdk", gptWith({ [MIB - 1024]: "KDMV" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a GPT disk that ends as a dmg", gptWith({ [MIB - 512]: "koly" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a GPT disk that is LUKS", gptWith({ 0: "LUKS\xba\xbe" }), "FORMAT_UNSAFE", "ambiguous"],
  ["HD09 a GPT disk that is a vmdk", gptWith({ 0: "# Disk DescriptorFile\n" }), "FORMAT_UNSAFE", "ambiguous"],

  ["HD10 a sparse vmdk", bytesWith(MIB, { 0: "KDMV\x01" }), "FORMAT_MISMATCH", undefined],
  ["HD10 a vmdk of ESX", bytesWith(MIB, { 0: "COWD" }), "FORMAT_MISMATCH", undefined],
  [
    "HD10 a newer vmdk of ESX",
    bytesWith(MIB, { 0: "\xbe\xba\xfe\xca\0\0\0\0" }),
    "FORMAT_MISMATCH",
    undefined,
  ],
  [
    "HD10 a vmdk that names a file of the host",
    bytesWith(MIB, { 0: '# Disk DescriptorFile\nversion=1\nRW 4 FLAT "/etc/passwd" 0\n' }),
    "FORMAT_MISMATCH",
    undefined,
  ],
  [
    "HD10 the same behind another comment",
    bytesWith(MIB, { 0: '#\nversion=1\nRW 4 FLAT "/etc/passwd" 0\n' }),
    "FORMAT_MISMATCH",
    undefined,
  ],

  ...[0, 3, 71, 103, 511].map((sizeBytes): HostileDisk => [
    `HD11 a header of ${sizeBytes} bytes`,
    { sizeBytes },
    "FORMAT_MISMATCH",
    undefined,
  ]),
];
