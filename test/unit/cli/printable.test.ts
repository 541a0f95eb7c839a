import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { printable } from "../../../src/cli/printable.ts";

/** Any code points, halves of pairs among them. Not fast-check's strings, whose tables take seconds on a busy host. */
const anyText = fc.array(fc.oneof(fc.integer({ min: 0, max: 0x10ffff }), fc.integer({ min: 0, max: 0xff })), {
  maxLength: 20,
})
  .map((points) => String.fromCodePoint(...points));

describe("printable", () => {
  it.each([
    ["plain words, “quotes”, ümläute, 漢字, 🙂", "plain words, “quotes”, ümläute, 漢字, 🙂"],
    ["\x1b[2J\x07", "\\u001b[2J\\u0007"],
    ["one\r\ntwo\tthree\0", "one\\u000d\\u000atwo\\u0009three\\u0000"],
    ["\x7f\x9b31m", "\\u007f\\u009b31m"],
    ["line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"],
    ["\u202egnp.exe\u2066\u200e\u061c", "\\u202egnp.exe\\u2066\\u200e\\u061c"],
    ["half \ud800 pair", "half \ufffd pair"],
  ])("%j becomes %j", (text, expected) => {
    expect(printable(text)).toBe(expected);
  });

  it("leaves the value of JSON as it is", () => {
    fc.assert(fc.property(anyText, (text) => {
      const json = JSON.stringify([{ [text]: text }, 1.5, null]);
      return JSON.stringify(JSON.parse(printable(json))) === json;
    }));
  });

  it("leaves one line without control characters of any text, and does nothing twice", () => {
    fc.assert(fc.property(anyText, (text) => {
      const shown = printable(text);
      expect(shown).not.toMatch(/[\p{Cc}\p{Cs}\u2028\u2029]/u);
      expect(printable(shown)).toBe(shown);
    }));
  });
});
