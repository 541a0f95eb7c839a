import { describe, expect, it } from "vitest";
import {
  credentialIn,
  type CredentialQuery,
  entryFor,
  isSameHost,
  parseAuthFile,
} from "../../../../src/registry/auth/auth_file.ts";
import { refusalOf } from "../../../support/failures.ts";
import { randomWord } from "../../../support/random_word.ts";

const word = randomWord();
const auth = (text: string) => ({ auth: Buffer.from(text).toString("base64") });
const query = (host: string, changes: Partial<CredentialQuery> = {}): CredentialQuery => ({
  host,
  repository: "os/demo",
  scheme: "https:",
  ...changes,
});

describe("parseAuthFile", () => {
  it("reads what the tools write, and leaves what else they put there", () => {
    const file = parseAuthFile(
      JSON.stringify({
        auths: { "a.example": auth(`robot:${word}`), "b.example": {} },
        credHelpers: { "c.example": "pass" },
        credsStore: "secretservice",
        HttpHeaders: { "User-Agent": "Docker" },
        psFormat: 7,
      }),
      "there",
    );
    expect(file).toMatchObject({ credHelpers: { "c.example": "pass" }, credsStore: "secretservice" });
    expect(Object.keys(file.auths ?? {})).toEqual(["a.example", "b.example"]);
  });

  it.each(["", " \n", "{}", '{"auths":null}', '{"auths":{}}'])("%j holds nobody's login", (text) => {
    expect(entryFor(parseAuthFile(text, "there").auths, query("a.example"))).toBeUndefined();
  });

  it.each([
    ["no JSON", `{"auths":{"a.example":{"auth":"${word}`],
    ["a list", `["${word}"]`],
    ["a list of logins", `{"auths":["${word}"]}`],
    ["a number for a login", `{"auths":{"a.example":{"auth":17,"x":"${word}"}}}`],
    ["a list of helpers", `{"credHelpers":["${word}"]}`],
  ])("AU20 %s is CREDENTIALS_INVALID, without a word of it", (_name, text) => {
    const { code, message, details } = refusalOf(() => parseAuthFile(text, "there"));
    expect([code, message]).toEqual(["CREDENTIALS_INVALID", expect.stringContaining("there")]);
    expect(message + JSON.stringify(details)).not.toContain(word);
  });
});

describe("credentialIn", () => {
  it.each([
    [auth(`robot:${word}`), "robot", word],
    [auth(`robot:${word}:with:colons`), "robot", `${word}:with:colons`],
    [auth(`robot:${word}\0\0`), "robot", word],
    [auth(`robot:${word}ü`), "robot", `${word}ü`],
    [{ username: "robot", password: word }, "robot", word],
  ])("reads %j", (entry, username, password) => {
    const found = credentialIn(entry, "there");
    expect(found?.kind === "password" && [found.username, found.password.reveal()]).toEqual([
      username,
      password,
    ]);
  });

  it("an identity token comes before a password", () => {
    const found = credentialIn({ ...auth("robot:x"), identitytoken: word }, "there");
    expect(found?.kind === "identity-token" && found.token.reveal()).toBe(word);
  });

  it("a mark that a helper has it is no login", () => {
    expect(credentialIn({}, "there")).toBeUndefined();
    expect(credentialIn(undefined, "there")).toBeUndefined();
  });

  it.each([
    { auth: `!${word}!` },
    auth(word),
    auth(`:${word}`),
    auth("robot:"),
    auth(`robot:${word}\r\nX-Injected: 1`),
    auth(`ro\nbot:${word}`),
    { username: "ro:bot", password: word },
    { identitytoken: `${word}\n` },
  ])("AU20 %j is CREDENTIALS_INVALID, without a word of it", (entry) => {
    const { code, message } = refusalOf(() => credentialIn(entry, "there"));
    expect(code).toBe("CREDENTIALS_INVALID");
    expect(message).not.toContain(word);
  });
});

describe("whose login an entry is", () => {
  it.each([
    ["reg.x.com", "reg.x.com"],
    ["REG.x.com", "reg.x.com"],
    ["reg.x.com:443", "reg.x.com"],
    ["reg.x.com", "reg.x.com:443"],
    ["https://reg.x.com", "reg.x.com"],
    ["https://reg.x.com/v2/", "reg.x.com"],
    ["https://reg.x.com/v1/", "reg.x.com"],
    ["[::1]:5000", "[::1]:5000"],
    ["[0:0:0:0:0:0:0:1]:5000", "[::1]:5000"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["https://index.docker.io/v1/", "docker.io"],
    ["docker.io", "index.docker.io"],
  ])("AU17 %s is %s", (key, host) => {
    expect(entryFor({ [key]: word }, query(host))).toBe(word);
  });

  it.each([
    ["reg.x.com", "reg.x.com.evil"],
    ["reg.x.com", "evilreg.x.com"],
    ["reg.x.com", "x.com"],
    ["x.com", "reg.x.com"],
    ["*.x.com", "reg.x.com"],
    ["reg.x.com.", "reg.x.com"],
    ["reg.x.com", "reg.x.com:5000"],
    ["reg.x.com:5000", "reg.x.com"],
    ["reg.x.com:80", "reg.x.com"],
    ["reg.x.com@evil.com", "evil.com"],
    ["user@evil.com", "evil.com"],
    ["evil.com#reg.x.com", "reg.x.com"],
    ["evil.com\\reg.x.com", "evil.com"],
    ["reg.x.com?", "reg.x.com"],
    ["", "reg.x.com"],
    ["[::1]", "[::1]:5000"],
    ["127.0.0.1:5000", "localhost:5000"],
    ["r\u0435g.x.com", "reg.x.com"],
  ])("AU17 %j is not %s", (key, host) => {
    expect(entryFor({ [key]: word }, query(host))).toBeUndefined();
    expect(isSameHost(key, { host, scheme: "https:" })).toBe(false);
  });

  it("AU17 the scheme's own port is 80 where TLS is not spoken", () => {
    const plain = query("lab", { scheme: "http:" });
    expect(entryFor({ "lab:443": 1, "lab:80": 2 }, plain)).toBe(2);
  });

  it("the entry that names most of the repository is taken, at whole words", () => {
    const entries = {
      "a.example/os/de": "de",
      "a.example": "host",
      "a.example/os": "namespace",
      "b.example/os/demo": "elsewhere",
    };
    expect(entryFor(entries, query("a.example"))).toBe("namespace");
    expect(entryFor(entries, query("a.example", { repository: "os" }))).toBe("namespace");
    expect(entryFor(entries, query("a.example", { repository: "oss/demo" }))).toBe("host");
    expect(entryFor({ ...entries, "a.example/os/demo": "whole" }, query("a.example"))).toBe("whole");
    expect(entryFor({ "a.example/os": 1 }, query("a.example", { repository: "x" }))).toBeUndefined();
  });
});
