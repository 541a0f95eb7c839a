import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { layerWindow } from "../../../src/agent/layer_window.ts";
import { HEAD_BYTES } from "../../../src/boot/disk_content.ts";
import type { ImageSource, OpenBlobOptions } from "../../../src/image/image_source.ts";
import { blobOf } from "../../support/blobs.ts";

const KIB = 1024;

/** A source of one blob, which tells what is asked of it and how its streams end. */
function sourceOf(bytes: Uint8Array, open?: (options: OpenBlobOptions) => ReadableStream<Uint8Array>) {
  const asked: string[] = [];
  let openStreams = 0;
  const stream = (startByte: number) => {
    let at = startByte;
    openStreams += 1;
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        if (at >= bytes.length) {
          openStreams -= 1;
          controller.close();
          return;
        }
        controller.enqueue(bytes.slice(at, at + 10_000));
        at += 10_000;
      },
      cancel() {
        openStreams -= 1;
      },
    }, { highWaterMark: 0 });
  };
  const source: Pick<ImageSource, "readHead" | "openBlob"> = {
    readHead: (_descriptor, lengthBytes) => {
      asked.push(`head ${lengthBytes}`);
      return Promise.resolve(bytes.slice(0, lengthBytes));
    },
    openBlob: (_descriptor, options = {}) => {
      asked.push(`from ${options.startByte}`);
      return Promise.resolve(open?.(options) ?? stream(options.startByte ?? 0));
    },
  };
  return { source: source as ImageSource, asked, openStreams: () => openStreams };
}

const bytes = new Uint8Array(randomBytes(3000 * KIB + 7));
const { descriptor } = blobOf(bytes);

describe("layerWindow", () => {
  it("reads what is looked at, each piece once, and leaves no stream open", async () => {
    const { source, asked, openStreams } = sourceOf(bytes);
    const window = layerWindow(source, descriptor);
    for (
      const [offset, length] of [
        [0, 512],
        [100, HEAD_BYTES - 100],
        [HEAD_BYTES - 10, 20],
        [HEAD_BYTES - 10, 128 * KIB],
        [2000 * KIB - 3, 10],
        [2000 * KIB + 5, 0],
        [bytes.length - 1024, 1024],
        [bytes.length - 10, 100],
        [bytes.length + 10, 100],
      ] as const
    ) {
      expect(await window.read(offset, length)).toEqual(bytes.slice(offset, offset + length));
    }
    expect(asked).toEqual([
      `head ${HEAD_BYTES}`,
      ...[64, 128, 192, 1984, 2944].map((kib) => `from ${kib * KIB}`),
    ]);
    expect(openStreams()).toBe(0);
  });

  it("asks for the head only of a layer that has no more", async () => {
    const small = blobOf(bytes.slice(0, 1000));
    const { source, asked } = sourceOf(small.bytes);
    const window = layerWindow(source, small.descriptor);
    expect(await window.read(0, 4096)).toEqual(small.bytes);
    expect(await window.read(990, 4096)).toEqual(small.bytes.slice(990));
    expect(asked).toEqual([`head ${HEAD_BYTES}`]);
  });

  it("reads 16 times at most, and knows what it has read then", async () => {
    const { source, asked } = sourceOf(bytes);
    const window = layerWindow(source, descriptor);
    for (let i = 1; i < 30; i++) await window.read(i * 100 * KIB, 10);
    expect(asked.length).toBe(16);
    expect(await window.read(100 * KIB, 10)).toEqual(bytes.slice(100 * KIB, 100 * KIB + 10));
    expect(await window.read(2900 * KIB, 10)).toEqual(new Uint8Array());
  });

  it.each<[string, () => ReadableStream<Uint8Array>]>([
    ["fails", () => new ReadableStream({ pull: (controller) => controller.error(new Error("broken")) })],
    ["ends early", () => new ReadableStream({ start: (controller) => controller.close() })],
  ])("has no more than the head of a source whose stream %s, and does not ask again", async (_name, open) => {
    const { source, asked } = sourceOf(bytes, open);
    const window = layerWindow(source, descriptor);
    expect(await window.read(HEAD_BYTES - 10, 20)).toEqual(bytes.slice(HEAD_BYTES - 10, HEAD_BYTES));
    expect(await window.read(2000 * KIB, 20)).toEqual(new Uint8Array());
    expect(asked.length).toBe(2);
  });

  it("does not wait long for a source that says nothing, and lets go of it", async () => {
    const silent = ({ signal }: OpenBlobOptions) =>
      new ReadableStream<Uint8Array>({
        start(controller) {
          signal?.addEventListener("abort", () => controller.error(new Error("stopped")));
        },
      });
    const window = layerWindow(sourceOf(bytes, silent).source, descriptor, { readMs: 20 });
    expect(await window.read(2000 * KIB, 20)).toEqual(new Uint8Array());
  });

  it("passes on that nobody wants the answer any more", async () => {
    const stop = new AbortController();
    const { source } = sourceOf(bytes, () => {
      stop.abort();
      throw new Error("cancelled");
    });
    const window = layerWindow(source, descriptor, { signal: stop.signal });
    await expect(window.read(2000 * KIB, 20)).rejects.toThrow("cancelled");
  });
});
