import { ShimError } from "../errors.ts";
import { Fields } from "./byte_window.ts";
import type { DiskFormat } from "./prepared_boot.ts";
import { MAX_VIRTUAL_SIZE_BYTES } from "./qcow2_header.ts";

/** A qcow2 file that reads through to another file and takes all writes. */
export type Overlay = {
  /** Absolute. */
  readonly backingPath: string;
  readonly backingFormat: DiskFormat;
  /** A multiple of 512. */
  readonly virtualSizeBytes: number;
};

/** A file by its parts; what lies between them are zeros. */
export type FileParts = {
  readonly sizeBytes: number;
  readonly parts: readonly { readonly offsetBytes: number; readonly bytes: Uint8Array }[];
};

/** All that {@link readOverlay} looks at: the header and what the file says right behind it. */
export const OVERLAY_HEAD_BYTES = 64 * 1024;

/** QEMU's own default, and so the best tested. */
const CLUSTER_BYTES = 64 * 1024;
const HEADER_BYTES = 112;
const EXTENSION_END = 0;
const EXTENSION_BACKING_FORMAT = 0xe2792aca;
const EXTENSION_FEATURE_NAMES = 0x6803f857;
/** What backup programs note of changed clusters; it changes nothing about where these are. */
const EXTENSION_BITMAPS = 0x23852875;
/** The specification's bound of a backing file's name. */
const MAX_PATH_BYTES = 1023;
const SECTOR_BYTES = 512;

/**
 * The bytes of a fresh overlay: header, refcounts of its own clusters, and an empty L1 table. No program has to run, or
 * to open the base, to make one.
 *
 * @throws {ShimError} REQUEST_INVALID when a path of that length, or a disk of that size, cannot be written
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/docs/interop/qcow2.txt
 */
export function renderOverlay({ backingPath, backingFormat, virtualSizeBytes }: Overlay): FileParts {
  const path = new TextEncoder().encode(backingPath);
  if (!backingPath.startsWith("/") || backingPath.includes("\0") || path.length > MAX_PATH_BYTES) {
    throw invalid(
      `its base is ${
        JSON.stringify(backingPath)
      }, must be an absolute path of at most ${MAX_PATH_BYTES} bytes`,
    );
  }
  const isWhole = Number.isSafeInteger(virtualSizeBytes) && virtualSizeBytes % SECTOR_BYTES === 0;
  if (!isWhole || virtualSizeBytes <= 0 || virtualSizeBytes > MAX_VIRTUAL_SIZE_BYTES) {
    throw invalid(`its size is ${virtualSizeBytes} bytes, must be a multiple of ${SECTOR_BYTES}`);
  }
  // An L2 table is one cluster of 8-byte entries, each for one cluster.
  const l1Entries = Math.ceil(virtualSizeBytes / (CLUSTER_BYTES / 8 * CLUSTER_BYTES));
  const clusters = 3 + Math.ceil(l1Entries * 8 / CLUSTER_BYTES);
  const format = new TextEncoder().encode(backingFormat);
  const extensionEnd = HEADER_BYTES + 8 + Math.ceil(format.length / 8) * 8;
  const pathOffset = extensionEnd + 8;

  const header = new Uint8Array(pathOffset + path.length);
  const view = new DataView(header.buffer);
  header.set([0x51, 0x46, 0x49, 0xfb]);
  view.setUint32(4, 3);
  view.setBigUint64(8, BigInt(pathOffset));
  view.setUint32(16, path.length);
  view.setUint32(20, Math.log2(CLUSTER_BYTES));
  view.setBigUint64(24, BigInt(virtualSizeBytes));
  view.setUint32(36, l1Entries);
  view.setBigUint64(40, BigInt(3 * CLUSTER_BYTES));
  view.setBigUint64(48, BigInt(CLUSTER_BYTES));
  view.setUint32(56, 1);
  // 2^4 = 16 bits for each refcount.
  view.setUint32(96, 4);
  view.setUint32(100, HEADER_BYTES);
  view.setUint32(HEADER_BYTES, EXTENSION_BACKING_FORMAT);
  view.setUint32(HEADER_BYTES + 4, format.length);
  header.set(format, HEADER_BYTES + 8);
  header.set(path, pathOffset);

  const refcountTable = new Uint8Array(8);
  new DataView(refcountTable.buffer).setBigUint64(0, BigInt(2 * CLUSTER_BYTES));
  const refcounts = new Uint8Array(clusters * 2);
  for (let cluster = 0; cluster < clusters; cluster++) refcounts[cluster * 2 + 1] = 1;
  return {
    sizeBytes: clusters * CLUSTER_BYTES,
    parts: [
      { offsetBytes: 0, bytes: header },
      { offsetBytes: CLUSTER_BYTES, bytes: refcountTable },
      { offsetBytes: 2 * CLUSTER_BYTES, bytes: refcounts },
    ],
  };
}

/** What a machine's qcow2 disk says of itself. */
export type DiskLinks = {
  /** The one other file it reads; null when it stands alone. */
  readonly backing: { readonly path: string; readonly format: DiskFormat } | null;
  readonly virtualSizeBytes: number;
};

/**
 * Reads what a machine's qcow2 disk says of itself, opening nothing else: whoever ran a guest on it may have been able
 * to write into it, and every program that opens it as qcow2 opens what its header names.
 *
 * @param head its first {@link OVERLAY_HEAD_BYTES}, or all of it
 * @throws {ShimError} CONTENT_CORRUPT when it is no sound disk, or may hold data anywhere but in itself and its base
 */
export function readDiskLinks(head: Uint8Array): DiskLinks {
  const fields = new Fields(head);
  const u32 = (at: number) => fields.u32be(at) ?? corrupt("it ends within its header");
  const u64 = (at: number) => fields.u64be(at) ?? corrupt("it ends within its header");
  const version = u32(4);
  if (!fields.has(0, "QFI\xfb") || (version !== 2 && version !== 3)) {
    corrupt("it is not a qcow2 file of version 2 or 3");
  }
  if (u32(32) !== 0) corrupt("it is encrypted");
  if (version === 3) checkFeatures(fields, u32);
  const format = readExtensions(fields, u32, version === 3 ? u32(100) : 72);
  const [offset, length] = [u64(8), u32(16)];
  if (offset === 0) return { backing: null, virtualSizeBytes: u64(24) };
  if (format === undefined) corrupt("it does not state its base's format");
  if (length > MAX_PATH_BYTES || offset + length > Math.min(head.length, OVERLAY_HEAD_BYTES)) {
    corrupt("its base's name lies outside its header");
  }
  return { backing: { path: decode(fields.slice(offset, length)), format }, virtualSizeBytes: u64(24) };
}

function checkFeatures(fields: Fields, u32: (at: number) => number): void {
  if ((u32(76) & 2) !== 0) corrupt("QEMU marked it corrupt");
  // Bit 0, dirty, is QEMU's own after a crash, which it mends; bit 3 states the compression.
  if (u32(72) !== 0 || (u32(76) & ~0b1001) !== 0) {
    corrupt(`it has incompatible features 0x${fields.hex(72, 8)}`);
  }
  // Raw external data: QEMU ignores it without a data file, others may not.
  if ((u32(92) & 2) !== 0) corrupt("it says that its data is elsewhere");
}

/** @returns the format of the base, where it is stated */
function readExtensions(
  fields: Fields,
  u32: (at: number) => number,
  startByte: number,
): DiskFormat | undefined {
  let found: DiskFormat | undefined;
  for (let at = startByte; at + 8 <= OVERLAY_HEAD_BYTES;) {
    const [type, sizeBytes] = [u32(at), u32(at + 4)];
    if (type === EXTENSION_END) return found;
    if (type === EXTENSION_BACKING_FORMAT) {
      const format = decode(fields.slice(at + 8, sizeBytes));
      if (format !== "raw" && format !== "qcow2") corrupt(`its base's format is ${JSON.stringify(format)}`);
      found = format;
    } else if (type !== EXTENSION_FEATURE_NAMES && type !== EXTENSION_BITMAPS) {
      corrupt(`it has an unexpected header extension 0x${type.toString(16)}`);
    }
    at += 8 + Math.ceil(sizeBytes / 8) * 8;
  }
  return corrupt("its header extensions do not end");
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return corrupt("a name in its header is not UTF-8");
  }
}

function corrupt(why: string): never {
  throw new ShimError("CONTENT_CORRUPT", `Cannot use the qcow2 disk: ${why}`);
}

function invalid(why: string): ShimError {
  return new ShimError("REQUEST_INVALID", `Cannot make an overlay: ${why}`);
}
