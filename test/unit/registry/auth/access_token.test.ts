import { describe, expect, it } from "vitest";
import { parseAccessToken } from "../../../../src/registry/auth/access_token.ts";
import { refusalOf } from "../../../support/failures.ts";
import { randomWord } from "../../../support/random_word.ts";

const word = randomWord();
const parse = (body: string | Uint8Array) => {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const { token, lifetimeMs } = parseAccessToken(bytes, "test");
  return [token.reveal(), lifetimeMs];
};

describe("parseAccessToken", () => {
  it.each([
    [{ token: word }],
    [{ access_token: word }],
    [{ token: word, access_token: word }],
    [{ token: "", access_token: word }],
    [{ token: word, refresh_token: "kept by nobody", issued_at: 17 }],
  ])("reads %j", (body) => {
    expect(parse(JSON.stringify(body))).toEqual([word, 60_000]);
  });

  it.each([
    [undefined, 60],
    [0, 30],
    [-5, 30],
    [29, 30],
    [300, 300],
    [1e12, 3600],
    ["300", 60],
    ["soon", 60],
    [null, 60],
    [{}, 60],
  ])("AU13 expires_in %j is %i seconds, whenever it says it was issued", (expires_in, seconds) => {
    for (const issued_at of [undefined, "2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "yesterday"]) {
      expect(parse(JSON.stringify({ token: word, expires_in, issued_at }))).toEqual([word, seconds * 1000]);
    }
  });

  it.each([
    ["nothing", ""],
    ["HTML", `<html><body>${word}</body></html>`],
    ["an array", "[]"],
    ["null", "null"],
    ["no token", "{}"],
    ["an empty token", '{"token":""}'],
    ["a token that is a number", '{"token":7}'],
    ["CR and LF in the token", JSON.stringify({ token: `${word}\r\nX-Injected: 1` })],
    ["NUL in the token", JSON.stringify({ token: `${word}\0` })],
    ["a blank in the token", JSON.stringify({ token: `${word} x` })],
    ["another alphabet in the token", JSON.stringify({ token: `${word}é` })],
    ["two different tokens", JSON.stringify({ token: word, access_token: `${word}x` })],
    ["a token of 1 MB", JSON.stringify({ token: "a".repeat(1_000_000) })],
    ["broken UTF-8", new Uint8Array([0x22, 0xff, 0x22])],
  ])("AU09 %s is REGISTRY_PROTOCOL, and no word of it is in the message", (_name, body) => {
    const { code, message } = refusalOf(() => parse(body));
    expect(code).toBe("REGISTRY_PROTOCOL");
    expect(message).not.toContain(word);
  });
});
