import { ShimError } from "../errors.ts";
import type { Fields, Part } from "./byte_window.ts";

/** All that is needed to find guest clusters in a qcow2 file that has nothing but guest clusters. */
export type Qcow2Header = {
  readonly version: 2 | 3;
  readonly virtualSizeBytes: number;
  readonly clusterBits: number;
  readonly l1OffsetBytes: number;
  readonly l1Entries: number;
  readonly compression: "deflate" | "zstd";
};

/** 16 TiB: the largest file that ext4 holds, so the largest disk that a host could fill for a guest. */
export const MAX_VIRTUAL_SIZE_BYTES = 16 * 1024 ** 4;

/** QEMU's own limits (block/qcow2.h): QCOW_MAX_L1_SIZE and QCOW_MAX_REFTABLE_SIZE. */
const MAX_L1_BYTES = 32 * 1024 ** 2;
const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 ** 2;
/** The header with its extensions fills a few hundred bytes; nothing beyond this is read, or accepted. */
export const MAX_HEADER_BYTES = 64 * 1024;

const EXTENSION_END = 0;
const EXTENSION_FEATURE_NAMES = 0x6803f857;
/** Extensions that point out of the file, or at something a fresh disk has not. */
const REFUSED_EXTENSIONS: Readonly<Record<number, readonly [reason: string, name: string]>> = {
  0xe2792aca: ["backing", "a backing file's format"],
  0x44415441: ["data-file", "the name of an external data file"],
  0x0537be77: ["encryption", "a LUKS header"],
  0x23852875: ["bitmaps", "bitmaps"],
};

/**
 * The gate: reads a qcow2 header, and refuses every file that is more than guest clusters and the tables to find them.
 * It opens nothing and follows nothing, so it may run on what no other program should see yet.
 *
 * @param head the file's first 64 KiB
 * @returns undefined when the window ended within the header, so that there is no answer
 * @throws {ShimError} FORMAT_UNSAFE, with `details.reason` in one word; FORMAT_MISMATCH when the file ends within its
 *   header; LIMIT_EXCEEDED for a virtual size that no disk should have
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/docs/interop/qcow2.txt sections "Header" to "Header extensions"
 */
export function readQcow2Header(head: Part, fileBytes: number): Qcow2Header | undefined {
  const { fields, isCut } = head;
  if (isCut && fields.length < MAX_HEADER_BYTES) return undefined;
  const u32 = (at: number) => fields.u32be(at) ?? cutOff(fileBytes);
  const u64 = (at: number) => fields.u64be(at) ?? cutOff(fileBytes);

  if (!fields.has(0, "QFI\xfb")) throw unsafe("magic", "it does not begin as one");
  const version = u32(4);
  if (version !== 2 && version !== 3) throw unsafe("version", `its version is ${version}, must be 2 or 3`);
  if (u64(8) !== 0) throw unsafe("backing", "it names a backing file, must stand alone");
  const clusterBits = u32(20);
  if (clusterBits < 9 || clusterBits > 21) {
    throw unsafe("cluster-bits", `its cluster_bits are ${clusterBits}, must be 9 to 21`);
  }
  if (u32(32) !== 0) throw unsafe("encryption", "it is encrypted, must not be");
  if (u32(60) !== 0) throw unsafe("snapshots", `it has ${u32(60)} snapshots, must have none`);
  // A file that had some may keep the place of their table.
  if (u64(64) % 2 ** clusterBits !== 0) throw unsafe("snapshots", "its snapshot table lies at no cluster");

  const compression = version === 3 ? checkVersion3(fields, u32) : "deflate";
  const headerBytes = version === 3 ? u32(100) : 72;
  checkExtensions({ u32, end: Math.min(2 ** clusterBits, MAX_HEADER_BYTES) }, headerBytes);

  const virtualSizeBytes = u64(24);
  if (virtualSizeBytes === 0 || virtualSizeBytes % 512 !== 0 || virtualSizeBytes > MAX_VIRTUAL_SIZE_BYTES) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot use the qcow2 disk: its virtual size is ${
        virtualSizeBytes === Infinity ? "over 8 PiB" : `${virtualSizeBytes} bytes`
      }, must be whole sectors of 512 bytes, 1 to ${MAX_VIRTUAL_SIZE_BYTES / 512}`,
      { details: { reason: "virtual-size", limitBytes: MAX_VIRTUAL_SIZE_BYTES } },
    );
  }
  const l1Entries = u32(36);
  checkTables(
    [
      { name: "L1 table", offsetBytes: u64(40), sizeBytes: l1Entries * 8, limitBytes: MAX_L1_BYTES },
      {
        name: "refcount table",
        offsetBytes: u64(48),
        sizeBytes: u32(56) * 2 ** clusterBits,
        limitBytes: MAX_REFCOUNT_TABLE_BYTES,
      },
    ],
    { clusterBytes: 2 ** clusterBits, fileBytes },
  );
  // An L2 table is one cluster of 8-byte entries, each for one cluster.
  const neededEntries = Math.ceil(virtualSizeBytes / 2 ** (2 * clusterBits - 3));
  if (l1Entries < neededEntries) {
    throw unsafe("l1-size", `its L1 table has ${l1Entries} entries, its virtual size needs ${neededEntries}`);
  }
  return { version, virtualSizeBytes, clusterBits, l1OffsetBytes: u64(40), l1Entries, compression };
}

/** Reads a field of the header, or throws when the file ends before it. */
type Read = (at: number) => number;

/** The fields that version 2 has not. @returns the compression of compressed clusters */
function checkVersion3(fields: Fields, u32: Read): "deflate" | "zstd" {
  const features = u32(76);
  if ((features & 4) !== 0) throw unsafe("data-file", "its clusters lie in an external data file");
  if ((features & 1) !== 0) throw unsafe("feature", "it is marked dirty: it was not closed properly");
  if ((features & 2) !== 0) throw unsafe("feature", "it is marked corrupt");
  if (u32(72) !== 0 || (features & ~0b1111) !== 0) {
    throw unsafe(
      "feature",
      `it has incompatible features 0x${fields.hex(72, 8)}, known is 8 (compression type)`,
    );
  }
  if ((u32(92) & 2) !== 0) throw unsafe("data-file", "it says that an external data file is raw");
  if (u32(96) > 6) throw unsafe("refcount-order", `its refcount_order is ${u32(96)}, must be at most 6`);
  const headerBytes = u32(100);
  if (headerBytes !== 104 && headerBytes !== 112) {
    throw unsafe("header-length", `its header_length is ${headerBytes}, must be 104 or 112`);
  }
  // One byte of compression type, then padding that must be zero.
  const type = headerBytes === 112 ? u32(104) : 0;
  const isStated = (features & 8) !== 0;
  if (headerBytes === 112 && u32(108) !== 0 || (isStated ? type !== 1 << 24 : type !== 0)) {
    throw unsafe("compression", "its compression type is unknown, must be zlib or zstd");
  }
  return isStated ? "zstd" : "deflate";
}

function checkExtensions({ u32, end }: { u32: Read; end: number }, headerBytes: number): void {
  let at = headerBytes;
  while (at + 8 <= end) {
    const type = u32(at);
    const sizeBytes = u32(at + 4);
    if (type === EXTENSION_END && sizeBytes === 0) return;
    const refused = REFUSED_EXTENSIONS[type];
    if (refused) throw unsafe(refused[0], `its header holds ${refused[1]}, must not`);
    if (type !== EXTENSION_FEATURE_NAMES) {
      throw unsafe("extension", `it has an unknown header extension 0x${type.toString(16)}`);
    }
    at += 8 + Math.ceil(sizeBytes / 8) * 8;
  }
  throw unsafe("extension", "its header extensions do not end within the header");
}

type Table = {
  readonly name: string;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  readonly limitBytes: number;
};

function checkTables(
  tables: readonly Table[],
  { clusterBytes, fileBytes }: { clusterBytes: number; fileBytes: number },
): void {
  for (const { name, offsetBytes, sizeBytes, limitBytes } of tables) {
    if (sizeBytes === 0 || sizeBytes > limitBytes) {
      throw unsafe("table", `its ${name} has ${sizeBytes} bytes, must have 1 to ${limitBytes}`);
    }
    if (offsetBytes % clusterBytes !== 0 || offsetBytes + sizeBytes > fileBytes) {
      throw unsafe("table", `its ${name} does not lie at a cluster of the file`);
    }
    if (offsetBytes < clusterBytes) throw unsafe("table", `its ${name} lies in the header`);
  }
  const [first, second] = tables.toSorted((a, b) => a.offsetBytes - b.offsetBytes);
  if (first && second && first.offsetBytes + first.sizeBytes > second.offsetBytes) {
    throw unsafe("table", `its ${first.name} and its ${second.name} overlap`);
  }
}

function unsafe(reason: string, why: string): ShimError {
  return new ShimError("FORMAT_UNSAFE", `Cannot use the qcow2 disk: ${why}`, {
    details: { reason, remedy: "publish it anew: qemu-img convert -O qcow2, or -O raw" },
  });
}

function cutOff(fileBytes: number): never {
  throw new ShimError(
    "FORMAT_MISMATCH",
    `Cannot use the qcow2 disk: the file of ${fileBytes} bytes ends within its header`,
    { details: { reason: "truncated", remedy: "publish it anew: it was cut off" } },
  );
}
