import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseContentRange } from "../../../src/registry/content_range.ts";

describe("parseContentRange", () => {
  it("RP21 gives every range that starts where asked and stays inside, with or without the total", () => {
    const sizes = fc.integer({ min: 1, max: 2 ** 49 }).chain((sizeBytes) =>
      fc.tuple(fc.constant(sizeBytes), fc.nat(sizeBytes - 1), fc.nat(sizeBytes - 1), fc.boolean())
    );
    fc.assert(fc.property(sizes, ([sizeBytes, a, b, isTotalKnown]) => {
      const [firstByte, lastByte] = [Math.min(a, b), Math.max(a, b)];
      const value = `bytes ${firstByte}-${lastByte}/${isTotalKnown ? sizeBytes : "*"}`;
      expect(parseContentRange(value, { firstByte, sizeBytes })).toEqual({ firstByte, lastByte });
      expect(parseContentRange(value, { firstByte: firstByte + 1, sizeBytes })).toBeUndefined();
      expect(parseContentRange(value, { firstByte, sizeBytes: lastByte })).toBeUndefined();
    }));
  });

  it("RP21 gives nothing for arbitrary text", () => {
    fc.assert(fc.property(fc.string(), (value) => {
      expect(parseContentRange(value, { firstByte: 0, sizeBytes: 10 })).toBeUndefined();
    }));
    expect(parseContentRange(undefined, { firstByte: 0, sizeBytes: 10 })).toBeUndefined();
  });
});
