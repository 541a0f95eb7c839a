import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../src/registry/limits.ts";
import type { NetworkSettings } from "../../src/registry/network/connections.ts";
import { Registries } from "../../src/registry/registries.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { Transport } from "../../src/registry/transport.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type FaultServer,
  type FaultServerOptions,
  respond,
  type Script,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { namedNetwork, PRIVATE_ADDRESS, PUBLIC_ADDRESS } from "../support/named_network.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { collect, streamOf } from "../support/streams.ts";

const redirectTo = (location: string) => respond(307, { headers: { Location: location } });
const { bytes, descriptor } = randomBlob(1000);

/** A registry called `name` whose every answer is the script's, as seen by a client that looks names up in `network`. */
async function withNamed(
  script: Script,
  { name = "registry.example", address = PUBLIC_ADDRESS, network }: {
    readonly name?: string;
    readonly address?: string;
    readonly network?: NetworkSettings;
  },
  body: (client: RegistryClient, server: FaultServer) => Promise<void>,
): Promise<void> {
  await using server = await startFaultServer(script, { address });
  const host = `${name}:${server.port}`;
  await using client = new RegistryClient({
    host,
    repository: "os/demo",
    limits: QUICK,
    insecureHosts: [host],
    network: network ?? namedNetwork({ [name]: [address] }),
  });
  await body(client, server);
}

/** Serves the blob, and counts who came. */
const storage = (options: FaultServerOptions) =>
  startFaultServer((request) => serveRange(request, bytes), options);

describe("a registry that the configuration does not name", () => {
  const answer: Script = (request) => serveRange(request, bytes);

  it.each([
    ["another network", PRIVATE_ADDRESS],
    ["this host", "127.0.0.1"],
  ])(
    "AP14 is not reached where its name leads to %s, which is not even connected to",
    async (_where, address) => {
      await using server = await startFaultServer(answer, { address });
      const host = `sneaky.example:${server.port}`;
      const network = { ...namedNetwork({ "sneaky.example": [address] }), namedHosts: new Set<string>() };
      await using client = new RegistryClient({
        host,
        repository: "os/demo",
        limits: QUICK,
        insecureHosts: [host],
        network,
      });
      const error = await failureOf(client.fetchSmallBlob(descriptor));
      expect(error).toMatchObject({ code: "POLICY_DENIED", message: expect.stringContaining(`"${host}"`) });
      expect(server.requests).toEqual([]);
    },
  );

  it("AP14 is not reached when its name leads elsewhere the second time", async () => {
    await using server = await startFaultServer(answer, { address: "0.0.0.0" });
    const host = `rebound.example:${server.port}`;
    const addresses = [PUBLIC_ADDRESS, PRIVATE_ADDRESS];
    const network = {
      ...namedNetwork({ "rebound.example": () => [addresses.shift() ?? PRIVATE_ADDRESS] }),
      namedHosts: new Set<string>(),
    };
    const wish = { host, repository: "os/demo", limits: QUICK, insecureHosts: [host], network };
    await using first = new RegistryClient(wish);
    expect(await first.fetchSmallBlob(descriptor)).toEqual(bytes);
    await using second = new RegistryClient(wish);
    expect((await failureOf(second.fetchSmallBlob(descriptor))).code).toBe("POLICY_DENIED");
    expect(server.requests.length).toBe(1);
  });

  it.each([
    ["by the configuration", true, false],
    ["by a folder of its own", false, true],
  ])("is reached anywhere once it is named %s", async (_how, isListed, isNamed) => {
    await using server = await startFaultServer(answer, { address: PRIVATE_ADDRESS });
    const host = `intranet.example:${server.port}`;
    const network = {
      ...namedNetwork({ "intranet.example": [PRIVATE_ADDRESS] }),
      namedHosts: new Set(isListed ? [host] : []),
    };
    await using client = new RegistryClient({
      host,
      repository: "os/demo",
      limits: QUICK,
      insecureHosts: [host],
      network,
      findPlaces: () => Promise.resolve({ mirrors: [], isNamed }),
    });
    expect(await client.fetchSmallBlob(descriptor)).toEqual(bytes);
  });
});

describe("where a registry may lead us", () => {
  let local: FaultServer;
  let internal: FaultServer;
  let outside: FaultServer;
  beforeAll(async () => {
    local = await storage({ address: "127.0.0.1" });
    internal = await storage({ address: PRIVATE_ADDRESS });
    outside = await storage({ address: PUBLIC_ADDRESS });
  });
  afterAll(async () => {
    for (const server of [local, internal, outside]) await server.stop();
  });

  const names = () =>
    namedNetwork({
      "registry.example": [PUBLIC_ADDRESS],
      "intranet.example": [PRIVATE_ADDRESS],
      "cdn.example": [PUBLIC_ADDRESS],
      "storage.intranet.example": [PRIVATE_ADDRESS],
      "sneaky.example": ["127.0.0.1"],
      "mixed.example": [PUBLIC_ADDRESS, "127.0.0.1"],
      "metadata.example": ["169.254.169.254"],
      localhost: ["127.0.0.1"],
    });

  it.each([
    "127.0.0.1",
    "2130706433",
    "0177.1",
    "0x7f000001",
    "127.1",
    "127.0.0.1.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "0.0.0.0",
    "169.254.169.254",
    "169.254.7.7",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "10.0.0.1",
    "172.16.5.5",
    "192.168.0.1",
    "100.64.0.1",
    "[fc00::1]",
    "224.0.0.1",
    "localhost",
    "sneaky.example",
    "mixed.example",
    "metadata.example",
    "storage.intranet.example",
  ])(
    "RP28 a public registry's redirect to %s is REDIRECT_REFUSED, and nobody is connected to",
    async (host) => {
      await withNamed(
        () => redirectTo(`http://${host}:${local.port}/b`),
        { network: names() },
        async (client, server) => {
          const before = [local.connections, internal.connections];
          const failure = await failureOf(client.openBlob(descriptor));
          expect([failure.code, failure.retryable]).toEqual(["REDIRECT_REFUSED", false]);
          expect(failure.details.remedy).toContain(`[registry.host."registry.example:${server.port}"]`);
          expect(server.requests).toHaveLength(1);
          expect([local.connections, internal.connections]).toEqual(before);
        },
      );
    },
  );

  it("RP28 a public registry's redirect to a public host is followed", async () => {
    await withNamed(
      () => redirectTo(`http://cdn.example:${outside.port}/b`),
      { network: names() },
      async (client) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      },
    );
  });

  it("RP28 a registry on a private network may redirect within it, but not to loopback or to metadata", async () => {
    const network = names();
    const locations = [
      `http://storage.intranet.example:${internal.port}/b`,
      `http://127.0.0.1:${local.port}/b`,
      `http://169.254.169.254/b`,
      `http://metadata.example/b`,
    ];
    await withNamed((_request, count) => redirectTo(locations[count] ?? ""), {
      name: "intranet.example",
      address: PRIVATE_ADDRESS,
      network,
    }, async (client) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      for (let count = 1; count < locations.length; count += 1) {
        expect((await failureOf(client.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
      }
    });
  });

  it("RP28 the second hop is judged like the first", async () => {
    await using hop = await startFaultServer(() => redirectTo(`http://127.0.0.1:${local.port}/b`), {
      address: PUBLIC_ADDRESS,
    });
    await withNamed(
      () => redirectTo(`http://cdn.example:${hop.port}/b`),
      { network: names() },
      async (client) => {
        expect((await failureOf(client.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
        expect(hop.requests).toHaveLength(1);
      },
    );
  });

  it("RP28 a registry that is allowed to may redirect to a private network, but to metadata never", async () => {
    await using registry = await startFaultServer((_request, count) =>
      redirectTo(
        count === 0 ? `http://storage.intranet.example:${internal.port}/b` : "http://169.254.169.254/b",
      ), { address: PUBLIC_ADDRESS });
    const host = `registry.example:${registry.port}`;
    await using client = new RegistryClient({
      host,
      repository: "os/demo",
      limits: QUICK,
      insecureHosts: [host],
      network: { ...names(), allowPrivateRedirects: [host] },
    });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect((await failureOf(client.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
  });

  it("RP29 a name that is public when first looked up and loopback later is refused when it is dialled", async () => {
    let lookups = 0;
    // The port is open on both addresses, so that only the address can be why.
    await using rebound = await storage({ address: "127.0.0.1" });
    await using cdn = await startFaultServer(() => [...respond(503), { close: true }], {
      address: PUBLIC_ADDRESS,
    });
    const network = namedNetwork({
      "registry.example": [PUBLIC_ADDRESS],
      "rebinding.example": () => lookups++ === 0 ? [PUBLIC_ADDRESS] : ["127.0.0.1"],
    });
    await withNamed(
      (_request, count) => redirectTo(`http://rebinding.example:${count === 0 ? cdn.port : rebound.port}/b`),
      { network },
      async (client) => {
        expect((await failureOf(client.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
        expect(cdn.requests).toHaveLength(1);
        expect(rebound.connections).toBe(0);
        // One look-up for one connection: what was judged is what is dialled.
        expect(network.lookedUp.filter((name) => name === "rebinding.example")).toHaveLength(2);
      },
    );
  });

  it("RP28 a connection that the user's own word opened is no way in for a registry", async () => {
    // Both in one process: the private registry has been used, and its connection is idle.
    const network = names();
    const intranet = await startFaultServer((request) => serveRange(request, bytes), {
      address: PRIVATE_ADDRESS,
    });
    const hosts = [`intranet.example:${intranet.port}`];
    await using registry = await startFaultServer(() => redirectTo(`http://${hosts[0]}/b`), {
      address: PUBLIC_ADDRESS,
    });
    hosts.push(`registry.example:${registry.port}`);
    await using registries = new Registries({ insecureHosts: hosts, limits: QUICK, network });
    const [mine, theirs] = hosts.map((host) =>
      new RegistryClient({ host, repository: "os/demo", registries })
    );
    expect(await collect(mine!.openBlob(descriptor))).toEqual(bytes);
    expect((await failureOf(theirs!.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
    expect(intranet.requests).toHaveLength(1);
    await intranet.stop();
  });

  it("RP28 an upload's session on a network where the registry is not is REDIRECT_REFUSED", async () => {
    await withNamed(
      (request) =>
        request.method === "POST"
          ? respond(202, { headers: { Location: `http://127.0.0.1:${local.port}/upload` } })
          : respond(404),
      { network: names() },
      async (client) => {
        const before = local.connections;
        const open = () => Promise.resolve(streamOf(bytes));
        expect((await failureOf(client.pushBlob(descriptor, open))).code).toBe("REDIRECT_REFUSED");
        expect(local.connections).toBe(before);
      },
    );
  });

  it("AU05 the address of a token server is judged when it is dialled, too", async () => {
    const transport = new Transport({ ...DEFAULT_LIMITS, ...QUICK }, names());
    const registry = new URL("http://registry.example/");
    for (const host of ["127.1", "[::ffff:7f00:1]", "sneaky.example", "mixed.example", "intranet.example"]) {
      const url = new URL(`http://${host}:${local.port}/token`);
      const request = {
        method: "GET",
        url,
        headers: {},
        action: "test",
        sentBy: { registry, as: "realm" },
      } as const;
      expect((await failureOf(transport.send(request))).code).toBe("REALM_REFUSED");
    }
    await transport.close();
  });

  it("RP48 a name that does not exist is REGISTRY_UNAVAILABLE", async () => {
    await using client = new RegistryClient({
      host: "nowhere.example",
      repository: "os/demo",
      limits: QUICK,
      network: names(),
    });
    const failure = await failureOf(client.resolve("latest"));
    expect([failure.code, failure.retryable]).toEqual(["REGISTRY_UNAVAILABLE", true]);
  });
});
