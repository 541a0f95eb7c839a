import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseSize } from "../../../src/agent/quantity.ts";
import { refusalOf } from "../../support/failures.ts";

describe("parseSize", () => {
  it.each([
    ["0", 0],
    ["1000000", 1_000_000],
    ["512B", 512],
    ["1k", 1024],
    ["1K", 1024],
    ["1KiB", 1024],
    ["1kB", 1000],
    ["512M", 512 * 2 ** 20],
    ["512MiB", 512 * 2 ** 20],
    ["512MB", 512_000_000],
    ["20GiB", 20 * 2 ** 30],
    ["20 GiB", 20 * 2 ** 30],
    [" 20gib ", 20 * 2 ** 30],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["1TiB", 2 ** 40],
    ["1TB", 1e12],
    ["8191T", 8191 * 2 ** 40],
  ])("reads %j as %i bytes", (text, bytes) => {
    expect(parseSize(text, "--memory")).toBe(bytes);
  });

  it.each([
    ["", "nothing"],
    ["GiB", "a unit alone"],
    ["-1", "a sign"],
    ["1e9", "an exponent"],
    ["0x10", "another base"],
    ["1,5GiB", "a decimal comma"],
    ["1_000", "a separator"],
    [".5G", "no digit before the point"],
    ["1.", "no digit after the point"],
    ["1PiB", "an unknown unit"],
    ["1constructor", "a name of every object"],
    ["1 G i B", "a torn unit"],
    ["٣", "digits of another script"],
    ["NaN", "not a number"],
    ["Infinity", "no end"],
    ["9999999999999999", "more digits than a number holds"],
    ["9007199254740993", "a number that would be rounded"],
    ["8192T", "more than a number counts exactly"],
  ])("refuses %j: %s", (text) => {
    expect(refusalOf(() => parseSize(text, "--disk-size"))).toEqual({
      code: "REQUEST_INVALID",
      message: `Cannot use --disk-size ${
        JSON.stringify(text)
      }: must be a size such as 20GiB, 512MiB or 1000000`,
      details: {},
    });
  });

  it("gives whole bytes of every number of MiB", () => {
    fc.assert(fc.property(fc.nat(2 ** 30), (mib) => {
      expect(parseSize(`${mib}MiB`, "--memory")).toBe(mib * 2 ** 20);
    }));
  });

  it("gives a whole, exact number or REQUEST_INVALID, whatever is typed", () => {
    fc.assert(fc.property(fc.string(), (text) => {
      try {
        const bytes = parseSize(text, "--memory");
        expect(Number.isSafeInteger(bytes) && bytes >= 0).toBe(true);
      } catch (error) {
        expect(error).toMatchObject({ code: "REQUEST_INVALID" });
      }
    }));
  });
});
