import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { constants, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gunzip } from "../../../src/content/gzip_stream.ts";
import { unzstd } from "../../../src/content/zstd_stream.ts";
import { ShimError } from "../../../src/errors.ts";
import { gzipOf, repeated, zstdOf } from "../../support/compressed_bytes.ts";
import { rejectionOf } from "../../support/failures.ts";
import { concat } from "../../support/tar_bytes.ts";

const BROKEN = "the image's publisher must publish it anew: the layer's bytes are broken";

/** Half random, so that blocks are neither raw nor trivial, and several of them. */
const content = new TextEncoder().encode(randomBytes(250_000).toString("hex"));
const zeros = new Uint8Array(3_000_000);

/** Some runtimes throw a decoder's failure past everybody. */
const uncaught: unknown[] = [];
const onUncaught = (error: unknown) => void uncaught.push(error);
beforeAll(() => void process.on("uncaughtException", onUncaught));
afterAll(() => {
  process.off("uncaughtException", onUncaught);
  expect(uncaught).toEqual([]);
});

async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    await setImmediate();
    yield bytes.slice(start, start + pieceBytes);
  }
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return concat(...parts);
}

const codecs = [
  { name: "gzip", pack: gzipOf, unpack: gunzip },
  { name: "zstd", pack: zstdOf, unpack: unzstd },
] as const;

describe.each(codecs)("$name", ({ name, pack, unpack }) => {
  const packed = pack(content);

  it.each([1 << 30, 65_536, 1009])("gives the bytes back from pieces of %i bytes", async (pieceBytes) => {
    expect(Buffer.compare(await collect(unpack(pieces(packed, pieceBytes))), content)).toBe(0);
    expect(Buffer.compare(await collect(unpack(pieces(pack(zeros), pieceBytes))), zeros)).toBe(0);
  });

  it("gives nothing of nothing, and a byte of a byte, piece by piece", async () => {
    expect(await collect(unpack(pieces(pack(new Uint8Array()), 1)))).toEqual(new Uint8Array());
    expect(await collect(unpack(pieces(pack(Uint8Array.of(7)), 1)))).toEqual(Uint8Array.of(7));
  });

  it("joins several members, wherever the pieces end", async () => {
    const small = pack(content.slice(0, 1000));
    const three = concat(small, pack(new Uint8Array()), packed, small);
    const expected = concat(content.slice(0, 1000), content, content.slice(0, 1000));
    for (const pieceBytes of [1 << 30, small.length, small.length - 1, small.length + 1, 4096]) {
      expect(Buffer.compare(await collect(unpack(pieces(three, pieceBytes))), expected)).toBe(0);
    }
  });

  it("refuses a truncated one, wherever it ends", async () => {
    const two = concat(pack(content.slice(0, 1000)), packed);
    const first = pack(content.slice(0, 1000)).length;
    const ends = [0, 1, 3, 4, 5, 6, 9, 17, first - 1, first + 1, first + 5, first + 300, two.length - 1];
    for (const end of ends) {
      const { code, details } = await rejectionOf(collect(unpack(pieces(two.subarray(0, end), 1 << 30))));
      expect([end, code, details]).toEqual([end, "FORMAT_MISMATCH", { remedy: BROKEN }]);
    }
    expect((await rejectionOf(collect(unpack(pieces(packed.subarray(0, -7), 4096))))).message).toMatch(
      name === "gzip"
        ? /it is no sound gzip stream, unexpected end of file$/
        : /its zstd stream is truncated$/,
    );
  });

  it.each([
    ["garbage", randomBytes(500)],
    ["a zero", new Uint8Array(1)],
    ["zeros", new Uint8Array(70_000)],
    ["zeros and another member", concat(new Uint8Array(512), pack(content))],
    ["a part of its magic number", pack(content).slice(0, 2)],
  ])("refuses %s after its end", async (_, rest) => {
    for (const pieceBytes of [1 << 30, packed.length, 4096]) {
      const failure = rejectionOf(collect(unpack(pieces(concat(packed, rest), pieceBytes))));
      expect((await failure).code).toBe("FORMAT_MISMATCH");
    }
  });

  it("refuses or survives a wrong byte anywhere, always as a failure of the stream", async () => {
    const sound = name === "zstd"
      ? new Uint8Array(
        zstdCompressSync(content, { params: { [constants.ZSTD_c_checksumFlag]: 1 } }),
      )
      : packed;
    const outcomes = new Set<string>();
    for (let i = 0; i < 60; i++) {
      const broken = sound.slice();
      const offset = i < 20 ? i : Math.floor(Math.random() * broken.length);
      broken[offset] = (broken[offset] ?? 0) ^ (1 + Math.floor(Math.random() * 255));
      const outcome = await collect(unpack(pieces(broken, 65_536))).then(
        (bytes) => Buffer.compare(bytes, content) === 0 ? "the same" : `other bytes at ${offset}`,
        (error: unknown) => error instanceof ShimError ? error.code : String(error),
      );
      outcomes.add(outcome);
    }
    outcomes.delete("the same");
    // A frame's window may be larger by a wrong bit.
    outcomes.delete("LIMIT_EXCEEDED");
    expect([...outcomes]).toEqual(["FORMAT_MISMATCH"]);
  });

  it("passes on what the source fails with, as it is", async () => {
    const failure = new Error("the disk is gone");
    async function* failing() {
      yield packed.subarray(0, 100_000);
      await setImmediate();
      throw failure;
    }
    await expect(collect(unpack(failing()))).rejects.toBe(failure);
  });

  it("stops the source when nobody wants more, and takes no more than it must before", async () => {
    let given = 0;
    let isReleased = false;
    async function* endless() {
      try {
        for (;;) {
          given += 1;
          yield packed;
          await setImmediate();
        }
      } finally {
        isReleased = true;
      }
    }
    for await (const chunk of unpack(endless())) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect([isReleased, given < 10]).toEqual([true, true]);
  });

  it("gives what a head holds, and does not mind that it ends", async () => {
    for (const end of [0, 1, 5, 10, 100_000, packed.length - 3, packed.length]) {
      const bytes = await collect(unpack(pieces(packed.subarray(0, end), 1 << 30), { isHead: true }));
      expect([end, Buffer.compare(bytes, content.subarray(0, bytes.length))]).toEqual([end, 0]);
      if (end >= 100_000) expect(bytes.length).toBeGreaterThanOrEqual(100_000);
    }
  });
});

describe("unzstd", () => {
  /** A frame header, then whatever. */
  const frame = (...bytes: readonly number[]) => Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...bytes);
  const messageOf = async (bytes: Uint8Array) => {
    const { code, message } = await rejectionOf(collect(unzstd(pieces(bytes, 1 << 30))));
    return [code, message.replace("Cannot unpack the disk layer: ", "")];
  };

  it("passes over frames to be skipped, but wants one of content", async () => {
    const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3);
    const bytes = concat(skippable, skippable, zstdOf(content), skippable);
    expect(Buffer.compare(await collect(unzstd(pieces(bytes, 4096))), content)).toBe(0);
    expect(await messageOf(skippable)).toEqual(["FORMAT_MISMATCH", "its zstd stream is truncated"]);
    expect(await messageOf(concat(zstdOf(content), skippable.subarray(0, 9)))).toEqual([
      "FORMAT_MISMATCH",
      "its zstd stream is truncated",
    ]);
  });

  it("counts the frames before what is none", async () => {
    expect(await messageOf(concat(repeated(zstdOf(content), 2), new Uint8Array(8)))).toEqual([
      "FORMAT_MISMATCH",
      "what follows the first 2 frames of its zstd stream is no frame",
    ]);
  });

  it("refuses a frame that asks for more than 128 MiB of memory, by window or by size", async () => {
    const remedy = "publish it compressed without --long, or with --long=27";
    const refusal = async (bytes: Uint8Array) => {
      const { code, message, details } = await rejectionOf(collect(unzstd(pieces(bytes, 1 << 30))));
      return [code, message.replace("Cannot unpack the disk layer: its zstd stream ", ""), details];
    };
    // Windows of 2^31 and of 2^27 and an eighth.
    expect(await refusal(frame(0x00, 21 << 3, 1, 0, 0))).toEqual([
      "LIMIT_EXCEEDED",
      "asks for 2147483648 bytes of memory, limit is 134217728 bytes",
      { remedy },
    ]);
    expect((await refusal(frame(0x00, 17 << 3 | 1, 1, 0, 0)))[1]).toBe(
      "asks for 150994944 bytes of memory, limit is 134217728 bytes",
    );
    // A single segment of 2^62 bytes, and one of 4 GiB less one.
    expect((await refusal(frame(0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0)))[0]).toBe("LIMIT_EXCEEDED");
    expect((await refusal(frame(0xa0, 255, 255, 255, 255, 1, 0, 0)))[0]).toBe("LIMIT_EXCEEDED");
    // Exactly 2^27 is what `zstd --long` writes.
    expect(await collect(unzstd(pieces(frame(0x00, 17 << 3, 1, 0, 0), 3)))).toEqual(new Uint8Array());
  });

  it("refuses a frame that needs a dictionary, and takes one that names none", async () => {
    expect(await messageOf(frame(0x01, 0x58, 9, 1, 0, 0))).toEqual([
      "FORMAT_MISMATCH",
      "its zstd stream needs a dictionary, must need none",
    ]);
    expect(await collect(unzstd(pieces(frame(0x01, 0x58, 0, 1, 0, 0), 1)))).toEqual(new Uint8Array());
  });

  it("refuses impossible blocks, and less content than announced", async () => {
    const impossible = ["FORMAT_MISMATCH", "it is no sound zstd stream, a block has an impossible header"];
    expect(await messageOf(frame(0x00, 0x58, 7, 0, 0))).toEqual(impossible);
    expect(await messageOf(frame(0x00, 0x58, 1, 0, 0x20))).toEqual(impossible);
    // Two bytes announced, a raw block of one.
    expect((await messageOf(frame(0x20, 2, 9, 0, 0, 65)))[0]).toBe("FORMAT_MISMATCH");
    expect(await collect(unzstd(pieces(frame(0x20, 1, 9, 0, 0, 65), 1)))).toEqual(Uint8Array.of(65));
  });
});
