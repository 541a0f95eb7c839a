import { type ByteWindow, windowOf } from "../boot/byte_window.ts";
import { HEAD_BYTES } from "../boot/disk_content.ts";
import { cannotUnpack, type Compression, type DiskPacking, isTarHeader } from "../boot/disk_packing.ts";
import { ChunkReader } from "./chunk_reader.ts";
import type { DecodeOptions } from "./decoder_stream.ts";
import { gunzip } from "./gzip_stream.ts";
import { openTarMember, TAR_BLOCK_BYTES } from "./tar_member.ts";
import { unzstd } from "./zstd_stream.ts";

/** What was taken off a layer, from the outside in. */
export type PackingStep = Compression | "tar";

/** The disk in a packed layer, being unpacked as its chunks are asked for. Whoever opened it closes it. */
export type PackedDisk = {
  readonly steps: readonly PackingStep[];
  /** What the tar calls the disk; null without a tar. */
  readonly memberName: string | null;
  /** As the tar says it; null without a tar. */
  readonly sizeBytes: number | null;
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Lets go of the source, whether all chunks were read or none. */
  close(): Promise<void>;
};

export type UnpackOptions = DecodeOptions & {
  /** Sees every piece that was decompressed, whether it is of the disk or not; throws to end it all. */
  readonly onDecoded?: (bytes: Uint8Array) => void;
};

/**
 * Takes compression and tar off, as a stream. Memory does not depend on the layer's size. When the chunks have come to
 * their end, all of `source` was read and found to be sound.
 *
 * @throws {ShimError} FORMAT_MISMATCH when the layer is not what it claims, broken, or a file tree; LIMIT_EXCEEDED when
 *   unpacking it would take too much memory; what `source` and `onDecoded` fail with passes; so do the chunks
 */
export async function openPackedDisk(
  source: AsyncIterable<Uint8Array>,
  packing: DiskPacking,
  options: UnpackOptions = {},
): Promise<PackedDisk> {
  const { compression } = packing;
  const reader = new ChunkReader(observed(decompress(source, packing, options), options));
  const steps: readonly PackingStep[] = compression === null ? [] : [compression];
  const close = () => reader.close();
  try {
    const first = await reader.read(TAR_BLOCK_BYTES);
    reader.unread(first);
    if (!isTarHeader(first)) {
      if (compression === null && !options.isHead) throw cannotUnpack("it is no tar");
      return { steps, memberName: null, sizeBytes: null, chunks: allOf(reader), close };
    }
    const { name, sizeBytes, chunks } = await openTarMember(reader, options);
    return { steps: [...steps, "tar"], memberName: name, sizeBytes, chunks, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * What a packed layer's first bytes tell about the disk in it: a window onto the disk's start, as far as it could be
 * unpacked, for the recognisers. Its size is that of the disk where a tar tells it, else beyond all bounds.
 *
 * @param head the layer's first bytes, 64 KiB or more of them; what they do not reach is absent
 * @throws {ShimError} FORMAT_MISMATCH, LIMIT_EXCEEDED: see {@link openPackedDisk}
 */
export async function unpackDiskHead(packing: DiskPacking, head: Uint8Array): Promise<ByteWindow> {
  async function* source() {
    yield head;
  }
  const bytes = new Uint8Array(HEAD_BYTES);
  const disk = await openPackedDisk(source(), packing, { isHead: true });
  let filled = 0;
  try {
    for await (const chunk of disk.chunks) {
      const part = chunk.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
      if (filled === bytes.length) break;
    }
  } finally {
    await disk.close();
  }
  return windowOf(bytes.subarray(0, filled), disk.sizeBytes ?? Number.MAX_SAFE_INTEGER);
}

function decompress(
  source: AsyncIterable<Uint8Array>,
  { compression }: DiskPacking,
  options: DecodeOptions,
): AsyncIterable<Uint8Array> {
  if (compression === "gzip") return gunzip(source, options);
  return compression === "zstd" ? unzstd(source, options) : source;
}

async function* observed(
  chunks: AsyncIterable<Uint8Array>,
  { onDecoded }: UnpackOptions,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    onDecoded?.(chunk);
    yield chunk;
  }
}

async function* allOf(reader: ChunkReader): AsyncGenerator<Uint8Array> {
  for (;;) {
    const chunk = await reader.readSome(Infinity);
    if (chunk.length === 0) return;
    yield chunk;
  }
}
