import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { watched } from "../../support/watched_window.ts";
import { cannotBeTold, Fields, readPart, windowOf } from "../../../src/boot/byte_window.ts";

const bytes = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9]);

describe("windowOf", () => {
  it.each([
    [0, 3, [1, 2, 3]],
    [7, 8, [8, 9]],
    [9, 1, []],
    [1000, 1, []],
    [0, 0, []],
  ])("reads from %i %i bytes, as far as there are any", async (offset, length, expected) => {
    expect([...await windowOf(bytes).read(offset, length)]).toEqual(expected);
  });

  it("has the size of its bytes, unless the file is larger", () => {
    expect([windowOf(bytes).sizeBytes, windowOf(bytes, 100).sizeBytes]).toEqual([9, 100]);
  });
});

describe("readPart", () => {
  it.each<[string, number, number, number[], boolean]>([
    ["a part of the file", 2, 3, [3, 4, 5], false],
    ["what the file has of a part", 7, 8, [8, 9], false],
    ["nothing behind the file", 9, 1, [], false],
    ["nothing far behind the file", Infinity, 8, [], false],
    ["nothing before the file", -1, 8, [], false],
    ["nothing at no place", NaN, 8, [], false],
  ])("gives %s", async (_name, offset, length, expected, isCut) => {
    const { window, readBytes } = watched(windowOf(bytes));
    const part = await readPart(window, offset, length);
    expect([[...part.fields.slice(0, 100)], part.isCut]).toEqual([expected, isCut]);
    expect(readBytes()).toBe(expected.length);
  });

  it("says when the window ended before the part and the file did", async () => {
    const window = windowOf(bytes, 12);
    const cuts = [[0, 9], [0, 10], [8, 2], [9, 3], [11, 5], [12, 5]] as const;
    expect(
      await Promise.all(cuts.map(async ([offset, length]) => (await readPart(window, offset, length)).isCut)),
    ).toEqual([false, true, true, true, true, false]);
  });
});

describe("cannotBeTold", () => {
  it.each([
    [0, "cannot be told without its bytes"],
    [1023, "cannot be told from its first 1023 bytes"],
    [1024, "cannot be told from its first 1 KiB"],
    [65608, "cannot be told from its first 64 KiB"],
  ])("says how much of %i bytes was seen", (visibleBytes, expected) => {
    expect(cannotBeTold(visibleBytes)).toBe(expected);
  });
});

describe("Fields", () => {
  const fields = new Fields(new Uint8Array([0xff, ...bytes, 0xff]).subarray(1, 10));

  it("reads little-endian numbers within its own bytes", () => {
    expect([fields.length, fields.u8(8), fields.u16(0), fields.u32(1), fields.u64(1)]).toEqual([
      9,
      9,
      0x0201,
      0x05040302,
      Infinity,
    ]);
  });

  it("reads big-endian numbers, too", () => {
    expect([fields.u32be(0), fields.u64be(1), new Fields(new Uint8Array([0, 0, 1, 2, 3, 4, 5, 6])).u64be(0)])
      .toEqual([0x01020304, Infinity, 0x010203040506]);
  });

  it("gives its own bytes, as far as they go", () => {
    expect([[...fields.slice(1, 2)], [...fields.slice(8, 9)], [...fields.slice(9, 1)]]).toEqual([
      [2, 3],
      [9],
      [],
    ]);
  });

  it.each([[8, 0xfffffffffffff], [8, 2 ** 53 - 2]])(
    "reads %i bytes as the exact number %i",
    (length, value) => {
      const buffer = new Uint8Array(length);
      new DataView(buffer.buffer).setBigUint64(0, BigInt(value), true);
      expect(new Fields(buffer).u64(0)).toBe(value);
    },
  );

  it("gives Infinity for what no number holds exactly", () => {
    expect(new Fields(new Uint8Array(8).fill(0xff)).u64(0)).toBe(Infinity);
  });

  it("knows characters, hexadecimal and zeros, as far as the bytes go", () => {
    expect({
      has: [
        fields.has(0, "\x01\x02"),
        fields.has(0, "\x01\x03"),
        fields.has(8, "\x09\x0a"),
        fields.has(-1, "\x01"),
      ],
      hex: [fields.hex(0, 3), fields.hex(7, 16), fields.hex(Infinity, 16)],
      isZero: [fields.isZero(0, 9), new Fields(new Uint8Array(4)).isZero(1, 100)],
    }).toEqual({ has: [true, false, false, false], hex: ["010203", "0809", ""], isZero: [false, true] });
  });

  it("gives undefined outside the bytes, and never throws", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 16 }), fc.double(), (content, offset) => {
      const some = new Fields(content);
      for (
        const [length, value] of [
          [1, some.u8(offset)],
          [2, some.u16(offset)],
          [4, some.u32(offset)],
          [
            8,
            some.u64(offset),
          ],
          [4, some.u32be(offset)],
          [8, some.u64be(offset)],
        ]
      ) {
        if (value === undefined) continue;
        expect(offset >= 0 && offset + (length ?? 0) <= content.length).toBe(true);
      }
    }));
  });
});
