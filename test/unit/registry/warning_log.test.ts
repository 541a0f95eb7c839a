import { describe, expect, it } from "vitest";
import { WarningLog } from "../../../src/registry/pacing/warning_log.ts";

function told(...values: readonly string[]): string[] {
  const messages: string[] = [];
  const log = new WarningLog((message) => messages.push(message));
  log.note("r.example", values);
  log.note("r.example", values);
  return messages;
}

describe("WarningLog", () => {
  it.each([
    ['299 - "old"', "old"],
    ['299 - "a \\"quoted\\" \\\\ word"', 'a "quoted" \\ word'],
    ['299 - "\x1b[2J\u202e\n"', "\\u{1b}[2J\\u{202e}\\u{a}"],
    [' 299 - "spaced" ', "spaced"],
  ])("RP42 tells %j once, without what a terminal would obey", (value, words) => {
    expect(told(value)).toEqual([`registry "r.example" warns: ${words}`]);
  });

  it.each([
    '199 - "x"',
    '299 r.example "x"',
    "299 - x",
    '299 - "x',
    '299 - "x\\"',
    '299 - ""',
    "",
    '299 - "x" "date"',
  ])(
    "RP42 leaves out %j, which is not for people or not in the form agreed on",
    (value) => {
      expect(told(value)).toEqual([]);
    },
  );

  it("RP42 tells at most 4096 bytes of one answer, and at most 100 warnings", () => {
    const before = 'registry "r.example" warns: ';
    expect(told(`299 - "${"x".repeat(1_000_000)}"`)).toEqual([`${before}${"x".repeat(4093)}…`]);
    expect(told(`299 - "${'\\"'.repeat(500_000)}"`)).toEqual([`${before}${'"'.repeat(4093)}…`]);
    const many = told(...Array.from({ length: 9 }, (_, i) => `299 - "${i}${"\u00e9".repeat(200)}"`));
    expect(Buffer.byteLength(many.map((each) => each.slice(before.length)).join(""))).toBe(4096);
    expect(many.at(-1)?.endsWith("…")).toBe(true);
    expect(told(...Array.from({ length: 5000 }, (_, i) => `299 - "${i}"`))).toHaveLength(100);
  });
});
