import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Fields, windowOf } from "../../../src/boot/byte_window.ts";

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
        const [length, value] of [[1, some.u8(offset)], [2, some.u16(offset)], [4, some.u32(offset)], [
          8,
          some.u64(offset),
        ]]
      ) {
        if (value === undefined) continue;
        expect(offset >= 0 && offset + (length ?? 0) <= content.length).toBe(true);
      }
    }));
  });
});
