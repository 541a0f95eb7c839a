import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { parseJsonDocument } from "../../../src/image/json_document.ts";
import { lineOf, startScript } from "../../support/child_script.ts";
import { refusalOf } from "../../support/failures.ts";
import { leastTimeMs } from "../../support/least_time.ts";
import { kinds } from "../../support/read_json_script.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const read = (text: string) => parseJsonDocument(bytes(text), z.unknown(), "document");

function refuse(content: Uint8Array, why: string): void {
  expect(refusalOf(() => parseJsonDocument(content, z.unknown(), 'image index "x"'))).toEqual({
    code: "MANIFEST_INVALID",
    message: `Cannot read image index "x": ${why}`,
    details: {},
  });
}

describe("parseJsonDocument", () => {
  it.each([
    ["nothing", new Uint8Array()],
    ["text", bytes("hello")],
    ["half a document", bytes('{"a":')],
    ["two documents", bytes("{}{}")],
    ["a comment", bytes("{} // x")],
    ["HM10 a byte order mark", bytes("\ufeff{}")],
    ["HM10 UTF-16", new Uint8Array(Buffer.from("{}", "utf16le"))],
    ["HM10 invalid UTF-8", new Uint8Array([0x22, 0xff, 0x22])],
    ["HM10 a surrogate in UTF-8", new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22])],
    ["HM10 an overlong encoding", new Uint8Array([0x22, 0xc0, 0xaf, 0x22])],
  ])("refuses %s", (_name, content) => refuse(content, "it is not a UTF-8 JSON document"));

  it.each([
    ["a name", '{"a":1,"b":2,"a":1}', '"a" stands twice in one object'],
    ["a name in an inner object", '[{"a":{"b":1,"b":2}}]', '"b" stands twice in one object'],
    ["a name by its escape", '{"size":1,"\\u0073ize":2}', '"size" stands twice in one object'],
    ["a name with blanks before its colon", '{"a" : 1, "a"\n:2}', '"a" stands twice in one object'],
    ["the empty name", '{"":1,"":2}', '"" stands twice in one object'],
    [
      "a long name",
      `{"${"n".repeat(300)}":1,"${"n".repeat(300)}":2}`,
      `"${"n".repeat(100)}" stands twice in one object`,
    ],
  ])("HM10 refuses %s that stands twice", (_name, text, why) => refuse(bytes(text), why));

  it.each([
    ["__proto__", '{"__proto__":1}'],
    ["__proto__", '[{"a":{"\\u005f_proto__" : 1}}]'],
    ["constructor", '{"a":{"constructor":null}}'],
    ["prototype", '{"prototype":"prototype"}'],
  ])("HM10 refuses the name %s, wherever it stands", (name, text) => {
    refuse(bytes(text), `it holds the name "${name}", which is no document's to give`);
  });

  it.each(['{"a":"\\ud800"}', '["\\udc00"]', '{"\\ud800":1}', '"\\udc00\\ud800"'])(
    "HM10 refuses half a surrogate pair in %s",
    (text) => refuse(bytes(text), "it holds half a surrogate pair"),
  );

  it("reads millions of escapes in one string", () => {
    for (const text of ["\n".repeat(3_000_000), '\\"'.repeat(1_500_000)]) {
      expect(read(JSON.stringify({ [text]: [text], b: "\\" }))).toEqual({ [text]: [text], b: "\\" });
    }
  });

  it("HM10 refuses 100,000 levels", () => {
    refuse(bytes(`${"[".repeat(100_000)}${"]".repeat(100_000)}`), "it is nested over 100 levels");
    refuse(bytes(`${'{"a":'.repeat(101)}1${"}".repeat(101)}`), "it is nested over 100 levels");
    const deepest = `${"[".repeat(100)}${"]".repeat(100)}`;
    expect(read(deepest)).toEqual(JSON.parse(deepest));
  });

  it("refuses over 250,000 values, and what has deep places beside shallow ones", () => {
    const values = (count: number) => `[${"0,".repeat(count - 1)}0]`;
    refuse(bytes(values(250_001)), "it holds over 250000 values");
    expect(read(values(250_000))).toHaveLength(250_000);
    refuse(bytes(`["\\"[",${"[".repeat(100)}${"]".repeat(100)}]`), "it is nested over 100 levels");
    // What stands in strings does not count.
    const text = JSON.stringify(["[{,".repeat(300_000), '\\"[', "\\"]);
    expect(read(text)).toEqual(JSON.parse(text));
  });

  it.each(kinds)("grows by no more than 128 MiB over 4 MiB of %s", async (kind) => {
    const line = await lineOf(startScript("read_json_script.ts", [kind]), /^grew \d+$/);
    expect(Number(line.split(" ")[1])).toBeLessThan(128 * 1024 ** 2);
  });

  it.each([
    ["equal names in different objects", '{"a":{"a":1},"b":[{"a":1},{"a":1}]}'],
    ["equal strings", '{"a":"a","b":["a","a"]}'],
    ["names that differ in case", '{"a":1,"A":2}'],
    ["brackets and colons in strings", '{"a":"{[\\"","b":"}]:","c":"\\\\"}'],
    ["names of prototypes as values", '["__proto__",{"a":"constructor"},{"Constructor":"prototype"}]'],
    ["a surrogate pair", '"\\ud83d\\ude00"'],
  ])("reads %s", (_name, text) => {
    expect(read(text)).toEqual(JSON.parse(text));
  });

  it("tells the first three violations by their path", () => {
    const schema = z.object({
      a: z.array(z.object({ size: z.int() })),
      b: z.string(),
      c: z.string(),
      d: z.string(),
    });
    expect(refusalOf(() => parseJsonDocument(bytes('{"a":[{"size":1},{"size":1.5}]}'), schema, "it")))
      .toEqual({
        code: "MANIFEST_INVALID",
        message: "Cannot read it: a.1.size: Invalid input: expected int, received number; " +
          "b: Invalid input: expected string, received undefined; " +
          "c: Invalid input: expected string, received undefined; and 1 more",
        details: {},
      });
    expect(refusalOf(() => parseJsonDocument(bytes("[]"), schema, "it")).message).toBe(
      "Cannot read it: document: Invalid input: expected object, received array",
    );
  });

  it("reads whatever JSON.stringify writes, as JSON.parse does", () => {
    fc.assert(fc.property(fc.jsonValue({ maxDepth: 5, stringUnit: "grapheme" }), (value) => {
      const text = JSON.stringify(value, null, 1);
      // Refused on purpose.
      fc.pre(!/"(?:__proto__|constructor|prototype)": /.test(text));
      expect(read(text)).toEqual(JSON.parse(text));
    }));
  });

  it.each([
    ["one string", `"${"x".repeat(4_000_000)}"`],
    ["escapes", `"${"\\n".repeat(2_000_000)}"`],
    ["blanks after a string", `["a"${" ".repeat(4_000_000)}]`],
    ["backslashes", `"${"\\\\".repeat(2_000_000)}"`],
  ])("takes linear time on 4 MB of %s", async (_name, text) => {
    expect(await leastTimeMs(1000, () => read(text))).toBeLessThan(1000);
  });
});
