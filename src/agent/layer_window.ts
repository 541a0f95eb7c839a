import type { ByteWindow } from "../boot/byte_window.ts";
import { HEAD_BYTES } from "../boot/disk_content.ts";
import { ChunkReader } from "../content/chunk_reader.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { ImageSource } from "../image/image_source.ts";

/** The head, then pieces of this size at their own multiples: partition table, boot catalog, tables of a qcow2, texts. */
const PIECE_BYTES = 64 * 1024;
/** Of one layer, the head included: 1 MiB of it at most. */
const MAX_READS = 16;
/** A server that ignores ranges sends all that lies before a piece; nobody wants to wait for that. */
const READ_MS = 5000;

export type LayerWindowOptions = {
  readonly signal?: AbortSignal | undefined;
  /** For tests. */
  readonly readMs?: number;
};

/**
 * A window onto a layer where it is published, NOT verified: enough to say how an image would boot, never to boot it.
 * Fetches what is looked at, a bounded number of small pieces, each once. A piece that cannot be had is absent, and so is
 * everything after it that was not fetched before; only the head must be had.
 *
 * @throws {ShimError} from its reads: as `ImageSource.readHead`, and CANCELLED
 */
export function layerWindow(
  source: ImageSource,
  descriptor: Descriptor,
  { signal, readMs = READ_MS }: LayerWindowOptions = {},
): ByteWindow {
  const { sizeBytes } = descriptor;
  const pieces = new Map<number, Promise<Uint8Array | undefined>>();
  let head: Promise<Uint8Array> | undefined;
  let reads = 0;
  let isLost = false;

  async function readHead(): Promise<Uint8Array> {
    reads += 1;
    return await source.readHead(descriptor, HEAD_BYTES, { signal });
  }

  async function readPiece(startByte: number): Promise<Uint8Array | undefined> {
    if (isLost || reads === MAX_READS) return undefined;
    reads += 1;
    const lengthBytes = Math.min(PIECE_BYTES, sizeBytes - startByte);
    try {
      const bytes = await readRange(source, descriptor, { startByte, lengthBytes, signal, readMs });
      if (bytes.length === lengthBytes) return bytes;
    } catch (error) {
      // What was read so far is an answer, too; whoever asked to stop wants none.
      if (signal?.aborted) throw error;
    }
    isLost = true;
    return undefined;
  }

  return {
    sizeBytes,
    read: async (offsetBytes, lengthBytes) => {
      head ??= readHead();
      const start = await head;
      const end = Math.min(offsetBytes + lengthBytes, sizeBytes);
      if (end <= start.length) return start.subarray(offsetBytes, end);
      const bytes = new Uint8Array(Math.max(0, end - offsetBytes));
      let filled = 0;
      if (offsetBytes < start.length) {
        bytes.set(start.subarray(offsetBytes));
        filled = start.length - offsetBytes;
      }
      while (filled < bytes.length) {
        const at = offsetBytes + filled;
        const pieceAt = at - at % PIECE_BYTES;
        const reading = pieces.get(pieceAt) ?? readPiece(pieceAt);
        pieces.set(pieceAt, reading);
        const part = (await reading)?.subarray(at - pieceAt, at - pieceAt + bytes.length - filled);
        if (!part) break;
        bytes.set(part, filled);
        filled += part.length;
      }
      return bytes.subarray(0, filled);
    },
  };
}

type Range = {
  readonly startByte: number;
  readonly lengthBytes: number;
  readonly signal: AbortSignal | undefined;
  readonly readMs: number;
};

async function readRange(
  source: ImageSource,
  descriptor: Descriptor,
  { startByte, lengthBytes, signal, readMs }: Range,
): Promise<Uint8Array> {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), readMs);
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  try {
    const stream = await source.openBlob(descriptor, { startByte, signal: either });
    const reader = new ChunkReader(stream);
    try {
      return await reader.read(lengthBytes);
    } finally {
      await reader.close();
    }
  } finally {
    clearTimeout(timer);
  }
}
