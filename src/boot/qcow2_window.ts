import { type ByteWindow, Fields, readPart } from "./byte_window.ts";
import type { Qcow2Header } from "./qcow2_header.ts";
import { unpackHead } from "./unpack_head.ts";

/** The disk inside a qcow2 file. */
export type Qcow2Window = ByteWindow & {
  /** Why a read gave less than the disk has there, as a predicate; undefined while none did. */
  obstacle(): string | undefined;
};

/** What is read of tables at once; entries of 8 bytes never straddle two pieces. */
const TABLE_PIECE_BYTES = 4096;
/** Of a compressed cluster no more is read: enough for 128 KiB from its start, more than anybody looks at. */
const MAX_PACKED_BYTES = 160 * 1024;

/**
 * The virtual disk of a qcow2 file whose header {@link readQcow2Header} let pass. Reads table entries, the clusters asked
 * for, and nothing else; allocates what was asked for and one cluster.
 *
 * @param options.cut what to say when the file's own window ends too early
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v7.2.0/docs/interop/qcow2.txt section "Cluster mapping"
 */
export function qcow2Window(file: ByteWindow, header: Qcow2Header, options: { cut: string }): Qcow2Window {
  const { clusterBits, virtualSizeBytes } = header;
  const clusterBytes = 2 ** clusterBits;
  const entriesPerTable = clusterBytes / 8;
  const pieces = new Map<number, Promise<Fields | undefined>>();
  let obstacle: string | undefined;

  /** Stops a read here. */
  function stop(why: string): undefined {
    obstacle ??= why;
  }

  async function readFile(offsetBytes: number, lengthBytes: number): Promise<Fields | undefined> {
    const { fields, isCut } = await readPart(file, offsetBytes, lengthBytes);
    return isCut ? stop(options.cut) : fields;
  }

  /** The upper and lower half of a table's entry. */
  async function entryAt(offsetBytes: number): Promise<readonly [number, number] | undefined> {
    const pieceBytes = offsetBytes - offsetBytes % TABLE_PIECE_BYTES;
    const piece = pieces.get(pieceBytes) ?? readFile(pieceBytes, TABLE_PIECE_BYTES);
    pieces.set(pieceBytes, piece);
    const fields = await piece;
    if (!fields) return undefined;
    const upper = fields.u32be(offsetBytes - pieceBytes);
    const lower = fields.u32be(offsetBytes - pieceBytes + 4);
    if (upper === undefined || lower === undefined) return stop(unreadable("a table ends with the file"));
    return [upper, lower];
  }

  /** Where a guest cluster lies: its entry of the L2 table; zeros when there is no such table. */
  async function clusterEntry(cluster: number): Promise<readonly [number, number] | undefined> {
    const l1Entry = await entryAt(header.l1OffsetBytes + Math.floor(cluster / entriesPerTable) * 8);
    if (!l1Entry) return undefined;
    const l2OffsetBytes = hostOffset(l1Entry);
    if (l2OffsetBytes === 0) return [0, 0];
    if (l2OffsetBytes % clusterBytes !== 0 || l2OffsetBytes + clusterBytes > file.sizeBytes) {
      return stop(unreadable("a table does not lie at a cluster of the file"));
    }
    return await entryAt(l2OffsetBytes + (cluster % entriesPerTable) * 8);
  }

  /** Part of one guest cluster, as long as was asked for unless there is an obstacle; undefined for zeros. */
  async function readCluster(
    entry: readonly [number, number],
    { from, length }: { from: number; length: number },
  ): Promise<Uint8Array | undefined> {
    if ((entry[0] & 0x40000000) !== 0) return await readPacked(entry, { from, length });
    const offsetBytes = hostOffset(entry);
    const readsAsZeros = header.version === 3 && (entry[1] & 1) !== 0;
    if (offsetBytes === 0 || readsAsZeros) return undefined;
    if (offsetBytes % clusterBytes !== 0 || offsetBytes >= file.sizeBytes) {
      stop(unreadable("one does not lie at a cluster of the file"));
      return new Uint8Array();
    }
    // The last cluster of a file may be cut short: what is missing are zeros.
    const inFileBytes = Math.max(0, Math.min(length, file.sizeBytes - offsetBytes - from));
    const bytes = new Uint8Array(length);
    const fields = await readFile(offsetBytes + from, inFileBytes);
    if (!fields) return new Uint8Array();
    bytes.set(fields.slice(0, inFileBytes));
    return bytes;
  }

  async function readPacked(
    [upper, lower]: readonly [number, number],
    { from, length }: { from: number; length: number },
  ): Promise<Uint8Array> {
    // Bits 0 to x-1 are the offset, x to 61 the number of further sectors; x = 62 - (cluster_bits - 8) is 49 to 61.
    const upperOffsetBits = 62 - (clusterBits - 8) - 32;
    const offsetBytes = (upper & (2 ** upperOffsetBits - 1)) * 2 ** 32 + lower;
    const sectors = ((upper & 0x3fffffff) >>> upperOffsetBits) + 1;
    const packedBytes = sectors * 512 - offsetBytes % 512;
    const fields = await readFile(offsetBytes, Math.min(packedBytes, clusterBytes + 512, MAX_PACKED_BYTES));
    if (!fields) return new Uint8Array();
    const unpacked = unpackHead(fields.slice(0, fields.length), {
      packing: header.compression,
      maxBytes: clusterBytes,
    });
    const bytes = unpacked?.subarray(from, from + length) ?? new Uint8Array();
    if (bytes.length < length) stop(unreadable("one is compressed and cannot be unpacked"));
    return bytes;
  }

  async function read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
    const end = Math.min(offsetBytes + lengthBytes, virtualSizeBytes);
    const bytes = new Uint8Array(Math.max(0, end - offsetBytes));
    let filled = 0;
    while (filled < bytes.length) {
      const from = (offsetBytes + filled) % clusterBytes;
      const length = Math.min(clusterBytes - from, bytes.length - filled);
      const entry = await clusterEntry(Math.floor((offsetBytes + filled) / clusterBytes));
      if (!entry) break;
      const piece = await readCluster(entry, { from, length });
      if (piece) bytes.set(piece, filled);
      filled += piece?.length ?? length;
      if (piece && piece.length < length) break;
    }
    return bytes.subarray(0, filled);
  }

  return { sizeBytes: virtualSizeBytes, read, obstacle: () => obstacle };
}

/** Bits 9 to 55 of an L1 entry or of a standard L2 entry; beyond 2^53 inexact, and beyond any file anyway. */
function hostOffset([upper, lower]: readonly [number, number]): number {
  return (upper % 2 ** 24) * 2 ** 32 + (lower - lower % 512);
}

function unreadable(why: string): string {
  return `holds clusters that cannot be read: ${why}`;
}
