import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseChallenges } from "../../../../src/registry/auth/challenge.ts";
import { refusalOf } from "../../../support/failures.ts";

const read = (...fields: readonly string[]) =>
  parseChallenges(fields, "test").map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
const codeOf = (...fields: readonly string[]) => refusalOf(() => parseChallenges(fields, "test")).code;

const BEARER = ["bearer", { realm: "https://auth.example/token", service: "registry.example" }];
const BASIC = ["basic", { realm: "x, y" }];

describe("parseChallenges", () => {
  it.each([
    [['Bearer realm="https://auth.example/token",service="registry.example"'], [BEARER]],
    [['bEARER realm="https://auth.example/token" ,, service = registry.example,'], [BEARER]],
    [['Basic realm="x, y"', 'Bearer REALM="https://auth.example/token",Service="registry.example"'], [
      BASIC,
      BEARER,
    ]],
    [['Bearer realm="https://auth.example/token",service="registry.example",Basic realm="x, y"'], [
      BEARER,
      BASIC,
    ]],
    [['Basic realm="x, y", Bearer realm="https://auth.example/token", service=registry.example'], [
      BASIC,
      BEARER,
    ]],
    [['Basic realm="a\\"b\\\\c"'], [["basic", { realm: 'a"b\\c' }]]],
    [["Negotiate"], [["negotiate", {}]]],
    [["Negotiate, NTLM , Basic realm=x"], [["negotiate", {}], ["ntlm", {}], ["basic", { realm: "x" }]]],
    [["Negotiate YWJjZA==, Basic realm=x"], [["negotiate", {}], ["basic", { realm: "x" }]]],
    [[], []],
    [["", " , ,"], []],
  ])("AU01 reads %j", (fields, expected) => {
    expect(read(...fields)).toEqual(expected);
  });

  it.each([
    ['Bearer realm="unterminated'],
    ['Bearer realm="unterminated\\"'],
    ["Bearer realm=,x=y"],
    ["Bearer =x"],
    ['Bearer realm="x" service="y"'],
    ['Bearer realm="x"service="y"'],
    ['Bearer realm="x",realm="y"'],
    ['Bearer realm="x",REALM="x"'],
    ["realm=x"],
    ['Bearer realm="x\r\nX-Injected: 1"'],
    ['Bearer realm="\0"'],
    ["Bearer foo bar"],
    ["Bearer/realm=x"],
    ["()"],
    ["Bearer YWJj=, realm=x"],
    ['Bearer "x"'],
  ])("AU02 %j is REGISTRY_PROTOCOL", (field) => {
    expect(codeOf(field)).toBe("REGISTRY_PROTOCOL");
  });

  it.each([
    ["10,000 parameters", "Bearer " + Array.from({ length: 10_000 }, (_, index) => `p${index}=1`).join(",")],
    ["10,000 challenges", Array.from({ length: 10_000 }, (_, index) => `s${index}`).join(",")],
    ["an unterminated quote of 64 KiB", `Bearer realm="${"a".repeat(65_000)}`],
    ["64 KiB of backslashes", `Bearer realm="${"\\".repeat(65_001)}`],
    ["64 KiB of equal signs", `Bearer ${"=".repeat(65_000)}!`],
    ["64 KiB of a token68 that is none", `Bearer ${"a".repeat(64_000)}!`],
    ["64 KiB of spaces", `Bearer${" ".repeat(65_000)}!`],
    ["64 KiB of spaces and commas", `Bearer x=y${" ,".repeat(32_000)} ;`],
    ["over 64 KiB", `Bearer realm="${"a".repeat(70_000)}"`],
  ])("AU02 %s is REGISTRY_PROTOCOL, in one pass", (_name, field) => {
    expect(codeOf(field)).toBe("REGISTRY_PROTOCOL");
  });

  it("AU02 64 KiB that are in order are read", () => {
    const realm = "a".repeat(65_000);
    expect(read(`Bearer realm="${realm}"`)).toEqual([["bearer", { realm }]]);
  });

  it("AU02 anything at all is read or REGISTRY_PROTOCOL", () => {
    const text = fc.string({ unit: fc.constantFrom(...'aB=", \\\t\0é/') });
    fc.assert(fc.property(fc.array(text, { maxLength: 3 }), (fields) => {
      try {
        parseChallenges(fields, "test");
      } catch (error) {
        expect(error).toMatchObject({ code: "REGISTRY_PROTOCOL" });
      }
    }));
  });
});
