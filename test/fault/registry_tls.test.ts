import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NetworkSettings } from "../../src/registry/network/connections.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { randomBlob } from "../support/blobs.ts";
import { type Certificate, TestAuthority } from "../support/certificates.ts";
import { failureOf } from "../support/failures.ts";
import { type FaultServer, respond, serveRange, startFaultServer } from "../support/fault_server.ts";
import { namedNetwork, PUBLIC_ADDRESS } from "../support/named_network.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { freePort } from "../support/registry_server.ts";
import { collect } from "../support/streams.ts";

const { bytes, descriptor } = randomBlob(1000);
const names = {
  "registry.example": [PUBLIC_ADDRESS],
  "cdn.example": [PUBLIC_ADDRESS],
  "other.example": [PUBLIC_ADDRESS],
};

let authority: TestAuthority;
let good: Certificate;
let client: Certificate;
beforeAll(async () => {
  authority = await TestAuthority.make();
  good = await authority.issue({ name: "registry", for: ["DNS:registry.example", "DNS:cdn.example"] });
  client = await authority.issue({ name: "host-1" });
});
afterAll(() => authority[Symbol.asyncDispose]());

function clientOf(host: string, tls: NetworkSettings["tls"] = new Map()): RegistryClient {
  return new RegistryClient({
    host,
    repository: "os/demo",
    limits: { ...QUICK, connectTimeoutMs: 5_000 },
    network: { ...namedNetwork(names), tls },
  });
}

const trusting = (...hosts: readonly string[]) =>
  new Map(hosts.map((host) => [host, { authorities: [authority.file] }]));

const serving = (certificate: Certificate, more = {}) =>
  startFaultServer((request) => serveRange(request, bytes), {
    tls: { cert: certificate.cert, key: certificate.key, ...more },
    address: PUBLIC_ADDRESS,
  });

async function refusalOf(server: FaultServer, name: string): Promise<void> {
  const host = `${name}:${server.port}`;
  await using refusing = clientOf(host, trusting(host));
  const failure = await failureOf(refusing.openBlob(descriptor));
  expect([failure.code, failure.retryable]).toEqual(["REGISTRY_TLS", false]);
  expect(server.requests).toEqual([]);
}

describe("TLS", () => {
  it("RP47 an authority of one's own is trusted for its host, and for no other", async () => {
    await using server = await serving(good);
    const host = `registry.example:${server.port}`;
    await using trustingClient = clientOf(host, trusting(host));
    expect(await collect(trustingClient.openBlob(descriptor))).toEqual(bytes);
    // The same server under its other name.
    const other = `cdn.example:${server.port}`;
    await using otherClient = clientOf(other, trusting(host));
    expect((await failureOf(otherClient.openBlob(descriptor))).code).toBe("REGISTRY_TLS");
  });

  it("RP47 a certificate of an unknown authority, one for another name and an expired one are REGISTRY_TLS, tried once", async () => {
    await using stranger = await TestAuthority.make("Somebody Else");
    await using unknown = await serving(await stranger.issue({ name: "r", for: ["DNS:registry.example"] }));
    await refusalOf(unknown, "registry.example");
    expect(unknown.connections).toBe(1);
    await using wrongName = await serving(good);
    await refusalOf(wrongName, "other.example");
    await using expired = await serving(
      await authority.issue({ name: "r", for: ["DNS:registry.example"], isExpired: true }),
    );
    await refusalOf(expired, "registry.example");
  });

  it("RP47 a server that speaks TLS 1.0 only is REGISTRY_TLS", async () => {
    const port = await freePort();
    const server: ChildProcess = spawn("openssl", [
      ..."s_server -quiet -tls1 -cipher DEFAULT@SECLEVEL=0 -accept".split(" "),
      `127.0.0.1:${port}`,
      ...["-cert", good.certificateFile, "-key", good.keyFile],
    ], { stdio: ["pipe", "ignore", "ignore"] });
    const ended = once(server, "close");
    try {
      const host = `registry.example:${port}`;
      await using old = new RegistryClient({
        host,
        repository: "os/demo",
        limits: { ...QUICK, connectTimeoutMs: 5_000, attemptsWithoutProgress: 50, backoffMs: 100 },
        network: { ...namedNetwork({ "registry.example": ["127.0.0.1"] }), tls: trusting(host) },
      });
      // Until it listens, there are attempts.
      const failure = await failureOf(old.openBlob(descriptor));
      expect([failure.code, failure.message]).toEqual(["REGISTRY_TLS", expect.stringMatching(/protocol/i)]);
    } finally {
      server.kill();
      await ended;
    }
  });

  it("RP47 a host that speaks plain HTTP where TLS is due is REGISTRY_TLS: nothing is sent in the clear", async () => {
    const seen: Buffer[] = [];
    const plain = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", (data: Buffer) => {
        seen.push(data);
        socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
      });
    });
    plain.listen(0, PUBLIC_ADDRESS);
    await once(plain, "listening");
    const address = plain.address();
    const host = `registry.example:${typeof address === "object" ? address?.port : 0}`;
    await using strict = clientOf(host);
    expect((await failureOf(strict.openBlob(descriptor))).code).toBe("REGISTRY_TLS");
    plain.close();
    expect(seen).toHaveLength(1);
    // A handshake record, and no word of HTTP.
    expect(seen[0]?.[0]).toBe(22);
    expect(seen[0]?.toString("latin1")).not.toContain("HTTP");
  });

  it("RP25 a client certificate is shown to its own host, and not to the one it redirects to", async () => {
    const asking = { requestCert: true, rejectUnauthorized: false, ca: [client.cert] };
    await using storage = await serving(good, asking);
    await using registry = await startFaultServer(
      () => respond(307, { headers: { Location: `https://cdn.example:${storage.port}/b` } }),
      { tls: { cert: good.cert, key: good.key, ...asking }, address: PUBLIC_ADDRESS },
    );
    const host = `registry.example:${registry.port}`;
    const tls = new Map([
      [host, {
        authorities: [authority.file],
        client: { certificate: client.certificateFile, key: client.keyFile },
      }],
      [`cdn.example:${storage.port}`, { authorities: [authority.file] }],
    ]);
    await using showing = clientOf(host, tls);
    expect(await collect(showing.openBlob(descriptor))).toEqual(bytes);
    expect(registry.requests.map(({ clientName }) => clientName)).toEqual(["host-1"]);
    expect(storage.requests.map(({ clientName }) => clientName)).toEqual([undefined]);
  });

  it("a server that insists on a client certificate is REGISTRY_TLS without one", async () => {
    await using server = await serving(good, {
      requestCert: true,
      rejectUnauthorized: true,
      ca: [client.cert],
    });
    const host = `registry.example:${server.port}`;
    await using nameless = clientOf(host, trusting(host));
    const failure = await failureOf(nameless.openBlob(descriptor));
    expect(failure.code).toMatch(/^REGISTRY_(?:TLS|UNAVAILABLE)$/);
    expect(server.requests).toEqual([]);
  });

  it.each([
    ["a missing file", { authorities: ["/nonexistent/ca.pem"] }],
    ["a folder", { authorities: ["/tmp"] }],
    ["what is no certificate", { authorities: ["/etc/hostname"] }],
    ["what never ends", { authorities: ["/dev/zero"] }],
  ])("%s as an authority is CONFIG_INVALID, and no connection is made", async (_name, files) => {
    await using server = await serving(good);
    const host = `registry.example:${server.port}`;
    await using misled = clientOf(host, new Map([[host, files]]));
    expect((await failureOf(misled.openBlob(descriptor))).code).toBe("CONFIG_INVALID");
    expect(server.connections).toBe(0);
  });

  it("a key that does not belong to its certificate is CONFIG_INVALID, and the message holds nothing of it", async () => {
    const host = "registry.example:1";
    const files = {
      authorities: [],
      client: { certificate: client.certificateFile, key: good.keyFile },
    };
    await using misled = clientOf(host, new Map([[host, files]]));
    const failure = await failureOf(misled.openBlob(descriptor));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).not.toContain(good.key.split("\n")[1]);
  });
});
