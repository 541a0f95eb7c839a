import { describe, expect, it } from "vitest";
import { chooseProxy } from "../../../src/registry/network/proxy_choice.ts";

const http = new URL("http://proxy.example:3128");
const https = new URL("http://secure-proxy.example:3128");
const choose = (url: string, direct: readonly string[] = []) =>
  chooseProxy(new URL(url), { http, https, direct })?.host;

describe("chooseProxy", () => {
  it("goes by the scheme", () => {
    expect(choose("https://r.example/")).toBe(https.host);
    expect(choose("http://r.example/")).toBe(http.host);
    expect(chooseProxy(new URL("https://r.example/"), { http, direct: [] })).toBeUndefined();
  });

  it.each(["127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "localhost:5000", "a.localhost", "2130706433"])(
    "never stands before loopback: %s",
    (host) => {
      expect(choose(`http://${host}/`)).toBeUndefined();
    },
  );

  it.each([
    ["r.example", "https://r.example/"],
    ["R.Example", "https://r.example/"],
    ["r.example", "https://r.example./"],
    ["r.example", "https://sub.r.example/"],
    [".r.example", "https://sub.r.example/"],
    ["*.r.example", "https://sub.r.example/"],
    ["r.example:443", "https://r.example/"],
    ["r.example:5000", "https://r.example:5000/"],
    ["*", "https://r.example/"],
    [" r.example ", "https://r.example/"],
    ["10.0.0.0/8", "https://10.1.2.3/"],
    ["10.1.2.3", "https://10.1.2.3:5000/"],
    ["10.1.2.3:5000", "https://10.1.2.3:5000/"],
    ["fd00::/8", "https://[fd00::1]/"],
    ["[fd00::1]:5000", "https://[fd00:0::1]:5000/"],
    ["fd00:0::1", "https://[fd00::1]/"],
  ])("a direct entry %j is for %s", (entry, url) => {
    expect(choose(url, ["", "other.example", entry])).toBeUndefined();
  });

  it.each([
    [".r.example", "https://r.example/"],
    ["r.example", "https://notr.example/"],
    ["r.example:5000", "https://r.example/"],
    ["10.0.0.0/8", "https://11.1.2.3/"],
    ["10.0.0.0/99", "https://10.1.2.3/"],
    ["10.0.0.0/8", "https://ten.example/"],
    ["fd00::/8", "https://10.1.2.3/"],
    ["10.1.2.3", "https://10.1.2.33/"],
    ["example.com/8", "https://example.com/"],
  ])("a direct entry %j is not for %s", (entry, url) => {
    expect(choose(url, [entry])).toBe(https.host);
  });
});
