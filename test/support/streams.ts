import type { OpenContent } from "../../src/image/image_source.ts";

/** A stream of these chunks that counts how often it was cancelled. */
export function streamOf(
  ...chunks: readonly Uint8Array[]
): ReadableStream<Uint8Array> & { cancelled: number } {
  let next = 0;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = chunks[next++];
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
    cancel() {
      counted.cancelled++;
    },
  }, { highWaterMark: 0 });
  const counted = Object.assign(stream, { cancelled: 0 });
  return counted;
}

export function chunksOf(bytes: Uint8Array, chunkBytes: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    chunks.push(bytes.slice(start, start + chunkBytes));
  }
  return chunks;
}

export type Content = OpenContent & {
  /** From which byte it was opened, each time. */
  readonly openedAt: number[];
};

/** A source that gives these bytes from any of them on, in chunks, as often as it is asked. */
export function contentOf(bytes: Uint8Array, chunkBytes = 256 * 1024): Content {
  const openedAt: number[] = [];
  const open = (startByte: number) => {
    openedAt.push(startByte);
    return streamOf(...chunksOf(bytes.subarray(startByte), chunkBytes));
  };
  return Object.assign(open, { openedAt });
}

/** Reads all bytes; a failure may come when the stream is opened or while it is read. */
export async function collect(
  opened: ReadableStream<Uint8Array> | Promise<ReadableStream<Uint8Array>>,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = (await opened).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}
