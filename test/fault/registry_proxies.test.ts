import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { randomBlob } from "../support/blobs.ts";
import { TestAuthority } from "../support/certificates.ts";
import { failureOf } from "../support/failures.ts";
import { respond, serveRange, startFaultServer } from "../support/fault_server.ts";
import { startForwardProxy } from "../support/forward_proxy.ts";
import { namedNetwork } from "../support/named_network.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const { bytes, descriptor } = randomBlob(300_000);
/** Nothing has a name here: only the proxy knows where to go. */
const nameless = namedNetwork({});

function clientBehind(
  host: string,
  { http, https, direct = [], insecure = [], tls = new Map() }: {
    readonly http?: URL;
    readonly https?: URL;
    readonly direct?: readonly string[];
    readonly insecure?: readonly string[];
    readonly tls?: ReadonlyMap<string, { authorities: readonly string[] }>;
  },
): RegistryClient {
  const proxies = { ...(http ? { http } : {}), ...(https ? { https } : {}), direct };
  return new RegistryClient({
    host,
    repository: "os/demo",
    limits: { ...QUICK, connectTimeoutMs: 5_000 },
    insecureHosts: insecure,
    network: { ...nameless, proxies, tls },
  });
}

describe("proxies", () => {
  it("an https registry is reached through CONNECT; its certificate is still judged, and the proxy sees nothing", async () => {
    await using authority = await TestAuthority.make();
    const { cert, key } = await authority.issue({ name: "r", for: ["DNS:registry.example"] });
    await using registry = await startFaultServer((request) => serveRange(request, bytes), {
      tls: { cert, key },
    });
    await using proxy = await startForwardProxy({
      "registry.example:443": registry.host,
      "other.example:443": registry.host,
    });
    const tls = new Map(
      ["registry.example", "other.example"].map((host) => [host, { authorities: [authority.file] }]),
    );
    await using client = clientBehind("registry.example", { https: proxy.url, tls });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(proxy.requests).toEqual(["CONNECT registry.example:443"]);
    expect(registry.requests[0]?.headers["proxy-authorization"]).toBeUndefined();
    await using wrong = clientBehind("other.example", { https: proxy.url, tls });
    expect((await failureOf(wrong.openBlob(descriptor))).code).toBe("REGISTRY_TLS");
    await using stranger = clientBehind("registry.example", { https: proxy.url });
    expect((await failureOf(stranger.openBlob(descriptor))).code).toBe("REGISTRY_TLS");
  });

  it("RP42 a warning of 1 MB changes nothing behind a proxy either", async () => {
    await using authority = await TestAuthority.make();
    const { cert, key } = await authority.issue({ name: "r", for: ["DNS:registry.example"] });
    const headers = { Warning: `299 - "${"x".repeat(1_000_000)}"` };
    await using registry = await startFaultServer(() => respond(200, { headers, body: bytes }), {
      tls: { cert, key },
    });
    await using proxy = await startForwardProxy({ "registry.example:443": registry.host });
    const tls = new Map([["registry.example", { authorities: [authority.file] }]]);
    await using client = clientBehind("registry.example", { https: proxy.url, tls });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
  });

  it("an insecure registry is reached through the other proxy, by absolute URLs", async () => {
    await using registry = await startFaultServer((request) => serveRange(request, bytes));
    await using proxy = await startForwardProxy({ "registry.example:5000": registry.host });
    const host = "registry.example:5000";
    await using client = clientBehind(host, { http: proxy.url, insecure: [host] });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(proxy.requests).toEqual(["GET registry.example:5000"]);
  });

  it("user and password of the proxy's URL are given to the proxy, and to nobody else; no error holds them", async () => {
    const password = randomBytes(8).toString("hex") + "@:/";
    await using authority = await TestAuthority.make();
    const { cert, key } = await authority.issue({ name: "r", for: ["DNS:registry.example"] });
    await using registry = await startFaultServer(() => respond(404), { tls: { cert, key } });
    await using proxy = await startForwardProxy({ "registry.example:443": registry.host }, {
      credentials: `user:${password}`,
    });
    const url = new URL(proxy.url);
    url.username = "user";
    url.password = password;
    expect(decodeURIComponent(url.password)).toBe(password);
    const tls = new Map([["registry.example", { authorities: [authority.file] }]]);
    await using client = clientBehind("registry.example", { https: url, tls });
    const failure = await failureOf(client.resolve("latest"));
    expect(failure.code).toBe("REGISTRY_NOT_FOUND");
    expect(registry.requests[0]?.headers["proxy-authorization"]).toBeUndefined();
    url.password = `${password}x`;
    await using refused = clientBehind("registry.example", { https: url, tls });
    const refusal = await failureOf(refused.resolve("latest"));
    expect([refusal.code, refusal.message]).toEqual([
      "REGISTRY_UNAVAILABLE",
      expect.stringContaining("the proxy answered 407"),
    ]);
    for (const { message, details } of [failure, refusal]) {
      const told = JSON.stringify([message, details]);
      expect(told).not.toContain(password);
      expect(told).not.toContain(encodeURIComponent(password));
    }
  });

  it("a 407 to an absolute URL is the proxy's refusal, too", async () => {
    await using proxy = await startForwardProxy({}, { credentials: "user:word" });
    const host = "registry.example:5000";
    await using client = clientBehind(host, { http: proxy.url, insecure: [host] });
    const failure = await failureOf(client.resolve("latest"));
    expect([failure.code, failure.message]).toEqual([
      "REGISTRY_UNAVAILABLE",
      expect.stringContaining("the proxy answered 407"),
    ]);
  });

  it("RP48 what the proxy cannot reach, and a proxy that is not there, are REGISTRY_UNAVAILABLE", async () => {
    const proxy = await startForwardProxy({});
    await using client = clientBehind("registry.example", { https: proxy.url });
    const failure = await failureOf(client.resolve("latest"));
    expect([failure.code, failure.message]).toEqual([
      "REGISTRY_UNAVAILABLE",
      expect.stringContaining("the proxy answered 502"),
    ]);
    await proxy.stop();
    await using lonely = clientBehind("registry.example", { https: proxy.url });
    expect((await failureOf(lonely.resolve("latest"))).code).toBe("REGISTRY_UNAVAILABLE");
  });

  it("RP18 a proxy that never answers is REGISTRY_TIMEOUT", async () => {
    await using silent = await startFaultServer(() => [{ hang: true }]);
    await using client = new RegistryClient({
      host: "registry.example",
      repository: "os/demo",
      limits: { ...QUICK, attemptsWithoutProgress: 1 },
      network: { ...nameless, proxies: { https: new URL(`http://${silent.host}`), direct: [] } },
    });
    expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_TIMEOUT");
  });

  it("loopback and the hosts of NO_PROXY are reached directly", async () => {
    await using registry = await startFaultServer((request) => serveRange(request, bytes));
    await using proxy = await startForwardProxy({});
    await using local = clientBehind(registry.host, { http: proxy.url });
    expect(await collect(local.openBlob(descriptor))).toEqual(bytes);
    const host = `direct.example:${registry.port}`;
    await using direct = new RegistryClient({
      host,
      repository: "os/demo",
      limits: QUICK,
      insecureHosts: [host],
      network: {
        ...namedNetwork({ "direct.example": ["127.0.0.1"] }),
        proxies: { http: proxy.url, direct: [".other", "direct.example"] },
      },
    });
    expect(await collect(direct.openBlob(descriptor))).toEqual(bytes);
    expect(proxy.requests).toEqual([]);
  });

  it("RP28 behind a proxy, a redirect to a spelt-out private address is REDIRECT_REFUSED all the same", async () => {
    for (
      const location of [
        "http://10.0.0.1/b",
        "http://2130706433/b",
        "http://[::ffff:169.254.169.254]/b",
        "http://localhost/b",
      ]
    ) {
      await using registry = await startFaultServer(() => respond(307, { headers: { Location: location } }));
      await using proxy = await startForwardProxy({ "registry.example:5000": registry.host });
      const host = "registry.example:5000";
      await using client = clientBehind(host, { http: proxy.url, insecure: [host] });
      const { code } = await failureOf(client.openBlob(descriptor));
      // This network has no names, so `localhost` is not even found: it was not handed to the proxy.
      expect(code).toBe(location.includes("localhost") ? "REGISTRY_UNAVAILABLE" : "REDIRECT_REFUSED");
      expect(new Set(proxy.requests)).toEqual(new Set(["GET registry.example:5000"]));
    }
  });
});
