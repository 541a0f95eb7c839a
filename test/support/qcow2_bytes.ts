/** qcow2 files, written field by field as QEMU's docs/interop/qcow2.txt says. */
import { deflateRawSync, zstdCompressSync } from "node:zlib";

export type Qcow2Extension = readonly [type: number, content: Uint8Array | string];

/** How a guest cluster is stored; one that is not stored reads as zeros. */
export type ClusterForm = "plain" | "packed" | "zero";

export type Qcow2Changes = {
  readonly version?: number;
  readonly clusterBits?: number;
  /** What the guest sees at its start. */
  readonly disk?: Uint8Array;
  readonly form?: ClusterForm;
  readonly virtualSizeBytes?: bigint;
  readonly extensions?: readonly Qcow2Extension[];
  readonly compression?: "deflate" | "zstd";
  /** Bytes behind the last cluster are left out. */
  readonly sizeBytes?: number;
  /** Set last, over everything. */
  readonly patch?: Readonly<Record<number, readonly number[] | string>>;
};

/** Big-endian, as many bytes as named. */
export const u32 = (value: number): readonly number[] =>
  [...new Uint8Array(new Uint32Array([value]).buffer)].reverse();
export const u64 = (value: bigint): readonly number[] =>
  [...new Uint8Array(new BigUint64Array([value]).buffer)].reverse();

/** A file with header, refcount table, refcount block, L1 table and one L2 table, a cluster each, then the guest's. */
export function qcow2File(changes: Qcow2Changes = {}): Uint8Array {
  const { version = 3, clusterBits = 16, disk = new Uint8Array(), form = "plain", compression = "deflate" } =
    changes;
  const clusterBytes = 2 ** clusterBits;
  const clusters = Math.ceil(disk.length / clusterBytes);
  const tables = Math.ceil(clusters / (clusterBytes / 8)) || 1;
  const virtualSizeBytes = changes.virtualSizeBytes ??
    BigInt(Math.max(Math.ceil(disk.length / clusterBytes) * clusterBytes, 2 ** 20));
  const l1Entries = Math.ceil(Number(virtualSizeBytes) / (clusterBytes * clusterBytes / 8));
  const l1Clusters = Math.min(Math.ceil(l1Entries * 8 / clusterBytes), 64);
  const l1At = 3 * clusterBytes;
  const l2At = l1At + l1Clusters * clusterBytes;
  const stored = storedClusters(disk, { clusterBytes, form, compression });
  const dataAt = l2At + tables * clusterBytes;
  const file = new Uint8Array(dataAt + stored.reduce((sum, { length }) => sum + length, 0));
  const view = new DataView(file.buffer);

  file.set([..."QFI"].map((c) => c.charCodeAt(0)).concat(0xfb));
  view.setUint32(4, version);
  view.setUint32(20, clusterBits);
  view.setBigUint64(24, virtualSizeBytes);
  view.setUint32(36, l1Entries);
  view.setBigUint64(40, BigInt(l1At));
  view.setBigUint64(48, BigInt(clusterBytes));
  view.setUint32(56, 1);
  if (version === 3) {
    view.setBigUint64(72, compression === "zstd" ? 8n : 0n);
    view.setUint32(96, 4);
    view.setUint32(100, 112);
    file.set([compression === "zstd" ? 1 : 0], 104);
  }
  let at = version === 3 ? 112 : 72;
  for (const [type, content] of changes.extensions ?? []) {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    view.setUint32(at, type);
    view.setUint32(at + 4, bytes.length);
    file.set(bytes, at + 8);
    at += 8 + Math.ceil(bytes.length / 8) * 8;
  }

  for (let i = 0; i < tables; i++) {
    view.setBigUint64(l1At + 8 * i, BigInt(l2At + i * clusterBytes) | 1n << 63n);
  }
  let offset = dataAt;
  stored.forEach((bytes, i) => {
    const entry = l2At + 8 * i;
    file.set(bytes, offset);
    if (form === "packed") {
      const sectors = Math.floor((offset % 512 + bytes.length - 1) / 512);
      view.setBigUint64(entry, 1n << 62n | BigInt(sectors) << BigInt(70 - clusterBits) | BigInt(offset));
    } else view.setBigUint64(entry, form === "zero" ? 1n : BigInt(offset) | 1n << 63n);
    offset += bytes.length;
  });
  for (const [place, bytes] of Object.entries(changes.patch ?? {})) {
    file.set(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, Number(place));
  }
  return file.slice(0, changes.sizeBytes ?? file.length);
}

function storedClusters(
  disk: Uint8Array,
  { clusterBytes, form, compression }: {
    clusterBytes: number;
    form: ClusterForm;
    compression: "deflate" | "zstd";
  },
): Uint8Array[] {
  const clusters: Uint8Array[] = [];
  for (let at = 0; at < disk.length; at += clusterBytes) {
    const cluster = new Uint8Array(clusterBytes);
    cluster.set(disk.subarray(at, at + clusterBytes));
    if (form === "zero") clusters.push(new Uint8Array());
    else if (form === "plain") clusters.push(cluster);
    else if (compression === "zstd") clusters.push(zstdCompressSync(cluster));
    else clusters.push(deflateRawSync(cluster, { windowBits: 12 }));
  }
  return clusters;
}
