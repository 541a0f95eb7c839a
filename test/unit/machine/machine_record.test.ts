import { describe, expect, it } from "vitest";
import { isMachineId, parseMachineId } from "../../../src/machine/machine_id.ts";
import { parseMachineRecord, sameWishes } from "../../../src/machine/machine_record.ts";
import { codeOf } from "../../support/failures.ts";
import { randomRecord } from "../../support/machine_kit.ts";

describe("parseMachineId", () => {
  it.each(["a", "0", "vm-1", "a..b", "a.b-c", "a".repeat(64)])("takes %s", (id) => {
    expect(parseMachineId(id)).toBe(id);
  });

  it.each([
    "",
    ".",
    "..",
    "-a",
    "a-",
    ".a",
    "a.",
    "A",
    "a_b",
    "a/b",
    "a b",
    "a\n",
    "a\0",
    "ä",
    "a".repeat(65),
    "../a",
  ])("refuses %j", async (id) => {
    expect(isMachineId(id)).toBe(false);
    expect(await codeOf(Promise.resolve().then(() => parseMachineId(id)))).toBe("REQUEST_INVALID");
  });
});

describe("parseMachineRecord", () => {
  it("gives back what went through JSON", () => {
    const record = randomRecord("vm-1");
    expect(parseMachineRecord(JSON.parse(JSON.stringify(record)), "x")).toEqual(record);
  });

  it.each([
    ["a newer version", { schemaVersion: 2 }],
    ["an unknown field", { surprise: 1 }],
    ["a hostile id", { id: "../etc" }],
    ["a digest of another kind", { digest: "md5:1" }],
    ["a time without zone", { createdAt: "2026-01-02T03:04:05" }],
    ["a file outside", { writableFiles: ["../nvram"] }],
    ["an absolute file", { writableFiles: ["/dev/sda"] }],
    ["a hidden file", { writableFiles: [".nvram"] }],
    ["a document that is not JSON", { document: () => 1 }],
    ["wishes that are no object", { wishes: [] }],
  ])("refuses %s", async (_case, change) => {
    const parsed = Promise.resolve().then(() =>
      parseMachineRecord({ ...randomRecord("vm-1"), ...change }, "x")
    );
    expect(await codeOf(parsed)).toBe("CACHE_LAYOUT_INVALID");
  });
});

describe("sameWishes", () => {
  it("does not mind the order of keys, at any depth", () => {
    expect(
      sameWishes({ a: 1, b: { c: [1, { d: 2, e: 3 }], f: null } }, {
        b: { f: null, c: [1, { e: 3, d: 2 }] },
        a: 1,
      }),
    ).toBe(true);
  });

  it.each([
    [{ a: 1 }, { a: "1" }],
    [{ a: [1, 2] }, { a: [2, 1] }],
    [{ a: null }, {}],
    [{ a: { 0: 1 } }, { a: [1] }],
  ])("tells %j from %j", (one, other) => {
    expect(sameWishes(one, other)).toBe(false);
  });
});
