import { describe, expect, it } from "vitest";
import { hashBytes } from "../../../src/image/verification.ts";
import { blobPath, endpointOf, manifestPath, uploadsUrl } from "../../../src/registry/endpoint.ts";

const baseUrlOf = (host: string, insecureHosts: readonly string[] = []) =>
  endpointOf({ host, repository: "os/demo" }, insecureHosts).baseUrl.href;

describe("endpointOf", () => {
  it.each([
    ["127.0.0.1:5000", "http://127.0.0.1:5000/v2/os/demo/"],
    ["127.8.9.10", "http://127.8.9.10/v2/os/demo/"],
    ["localhost:80", "http://localhost/v2/os/demo/"],
    ["[::1]:5000", "http://[::1]:5000/v2/os/demo/"],
    ["[0:0::1]", "http://[::1]/v2/os/demo/"],
    ["2130706433", "http://127.0.0.1/v2/os/demo/"],
  ])("speaks plain HTTP to the loopback host %s", (host, url) => {
    expect(baseUrlOf(host)).toBe(url);
  });

  it.each([
    "registry.example.org",
    "registry.example.org:80",
    "10.0.0.1:5000",
    "127.0.0.1.example.org",
    "127.example.org",
    "localhost.example.org",
    "[::ffff:10.0.0.1]:5000",
    "0.0.0.0:5000",
  ])("speaks HTTPS to %s", (host) => {
    expect(new URL(baseUrlOf(host)).protocol).toBe("https:");
  });

  it.each(["1.2.3.256:5000", "[:::]", "[1::2::3]:5000"])("refuses %s, which no URL can hold", (host) => {
    expect(() => baseUrlOf(host)).toThrow(expect.objectContaining({ code: "REFERENCE_INVALID" }));
  });

  it("speaks plain HTTP to a host that is listed by exactly this name", () => {
    const listed = ["Registry.lan:5000"];
    expect(baseUrlOf("registry.lan:5000", listed)).toBe("http://registry.lan:5000/v2/os/demo/");
    for (const host of ["registry.lan", "registry.lan:5001", "x.registry.lan:5000"]) {
      expect(new URL(baseUrlOf(host, listed)).protocol).toBe("https:");
    }
  });

  it("asks Docker Hub where its registry is, under the name the user gave", () => {
    const endpoint = endpointOf({ host: "docker.io", repository: "library/debian" });
    expect(endpoint.baseUrl.href).toBe("https://registry-1.docker.io/v2/library/debian/");
    expect(endpoint.name).toBe("docker.io/library/debian");
  });
});

describe("manifestPath", () => {
  const endpoint = endpointOf({ host: "127.0.0.1:5000", repository: "os/demo" });
  const digest = hashBytes(new Uint8Array());

  it("names tags and digests; so do the other paths", () => {
    expect(manifestPath(endpoint, "v1.0_a-b")).toBe("manifests/v1.0_a-b");
    expect(manifestPath(endpoint, digest)).toBe(`manifests/${digest}`);
    expect(blobPath(digest)).toBe(`blobs/${digest}`);
    expect(uploadsUrl(endpoint).href).toBe("http://127.0.0.1:5000/v2/os/demo/blobs/uploads/");
  });

  it.each([
    ["..", "REFERENCE_INVALID"],
    ["a/../../b", "REFERENCE_INVALID"],
    ["a%2fb", "REFERENCE_INVALID"],
    ["a?x", "REFERENCE_INVALID"],
    ["a#x", "REFERENCE_INVALID"],
    ["", "REFERENCE_INVALID"],
    ["sha256:../../x", "MANIFEST_INVALID"],
    ["http://evil.example/", "MANIFEST_INVALID"],
    [`blake3:${"0".repeat(64)}`, "DIGEST_UNSUPPORTED"],
  ])("refuses %j with %s", (word, code) => {
    expect(() => manifestPath(endpoint, word)).toThrow(expect.objectContaining({ code }));
  });
});
