import { describe, expect, it } from "vitest";
import { redirectTarget } from "../../../src/registry/redirect.ts";

function targetOf(from: string, location: string): string {
  return redirectTarget({ url: new URL(from), header: () => location }, "test").href;
}

describe("redirectTarget", () => {
  it("RP27 refuses to go from https to plain http", () => {
    for (const location of ["http://registry.example.org/x", "http://127.0.0.1/x"]) {
      expect(() => targetOf("https://registry.example.org/v2/", location)).toThrow(
        expect.objectContaining({ code: "REDIRECT_REFUSED" }),
      );
    }
  });

  it("goes from http to https, and keeps the scheme of a relative Location", () => {
    expect(targetOf("http://127.0.0.1/v2/", "https://a.example/x")).toBe("https://a.example/x");
    expect(targetOf("https://a.example/v2/x?y", "//b.example/z")).toBe("https://b.example/z");
    expect(targetOf("https://a.example/v2/x?y", "z?q=1")).toBe("https://a.example/v2/z?q=1");
  });

  it("RP30 drops user, password and fragment", () => {
    expect(targetOf("https://a.example/", "https://user:secret@b.example/x#y")).toBe("https://b.example/x");
  });
});
