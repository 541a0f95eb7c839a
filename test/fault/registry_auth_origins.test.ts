import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AuthorizationSettings } from "../../src/registry/auth/authorization.ts";
import type { NetworkSettings } from "../../src/registry/network/connections.ts";
import { RegistryClient, type RegistryClientOptions } from "../../src/registry/registry_client.ts";
import {
  authorizingRegistry,
  basic,
  bearerChallenge,
  canary,
  heardBy,
  tokenBody,
} from "../support/authorizing_registry.ts";
import { randomBlob } from "../support/blobs.ts";
import { type Certificate, TestAuthority } from "../support/certificates.ts";
import { failureOf } from "../support/failures.ts";
import {
  type FaultServer,
  respond,
  type Script,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { namedNetwork, PRIVATE_ADDRESS, PUBLIC_ADDRESS } from "../support/named_network.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { collect, streamOf } from "../support/streams.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

const directory = useTemporaryDirectory();
const { bytes, descriptor } = randomBlob(1000);
const serve = (request: SeenRequest) => serveRange(request, bytes);
const redirectTo = (location: string) => respond(307, { headers: { Location: location } });

const NAMES = {
  "registry.example.com": [PUBLIC_ADDRESS],
  "auth.example.com": [PUBLIC_ADDRESS],
  "inside.example.com": ["127.0.0.1"],
  "intranet.example.com": [PRIVATE_ADDRESS],
  "sso.other.example": [PUBLIC_ADDRESS],
  "cdn.other.example": [PUBLIC_ADDRESS],
};

let authority: TestAuthority;
let certificate: Certificate;
beforeAll(async () => {
  authority = await TestAuthority.make();
  const names = Object.keys(NAMES).map((name) => `DNS:${name}`);
  certificate = await authority.issue({ name: "all", for: names });
});
afterAll(() => authority[Symbol.asyncDispose]());

const password = canary();
const SECRETS = [password, basic("robot", password).slice("Basic ".length)];

/** A client that is logged in at `host`, and at no other, in a network of names. */
async function loggedIn(host: string, { authorization, network, ...changes }: {
  readonly authorization?: Partial<AuthorizationSettings>;
  readonly network?: NetworkSettings;
} & Partial<Omit<RegistryClientOptions, "authorization" | "network">> = {}): Promise<RegistryClient> {
  const path = join(directory(), "auth.json");
  const auth = Buffer.from(`robot:${password}`).toString("base64");
  await writeFile(path, JSON.stringify({ auths: { [host]: { auth } } }), { mode: 0o600 });
  return new RegistryClient({
    host,
    repository: "os/demo",
    limits: { ...QUICK, connectTimeoutMs: 5_000 },
    insecureHosts: [host],
    network: { ...namedNetwork(NAMES), ...network },
    authorization: { ...authorization, credentials: { files: [path] } },
    ...changes,
  });
}

/** A plain registry on the "internet" whose token server is at `realm(port)`. */
async function withRealm(
  realm: string,
  body: (rig: { registry: FaultServer; host: string; heard: () => string }) => Promise<void>,
): Promise<void> {
  const scripted = authorizingRegistry({ serve, challenge: () => bearerChallenge(realm) });
  await using registry = await startFaultServer(scripted.script, { address: PUBLIC_ADDRESS });
  const host = `registry.example.com:${registry.port}`;
  await body({ registry, host, heard: () => heardBy(registry) });
}

const tokens: Script = () => tokenBody(canary());

describe("where a login goes", () => {
  it("AU03 a token server on an unrelated domain is REALM_REFUSED, and hears nothing", async () => {
    await using stranger = await startFaultServer(tokens, { address: PUBLIC_ADDRESS });
    await withRealm(`http://sso.other.example:${stranger.port}/token`, async ({ host, registry }) => {
      await using client = await loggedIn(host);
      const failure = await failureOf(client.openBlob(descriptor));
      expect([failure.code, failure.retryable]).toEqual(["REALM_REFUSED", false]);
      expect(failure.details.remedy).toContain(`"http://sso.other.example:${stranger.port}"`);
      expect([stranger.connections, registry.requests.length]).toEqual([0, 1]);
    });
  });

  it("AU03 it is asked, as whom we are, where the user has listed it", async () => {
    const registry = authorizingRegistry({ serve, challenge: () => bearerChallenge(`${origin}/token`) });
    await using sso = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
    const origin = `http://sso.other.example:${sso.port}`;
    await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
    const host = `registry.example.com:${server.port}`;
    await using client = await loggedIn(host, {
      authorization: { tokenServers: new Map([[host, [origin]]]) },
    });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(sso.requests.map(({ headers }) => headers.authorization)).toEqual([basic("robot", password)]);
    for (const secret of SECRETS) expect(heardBy(server)).not.toContain(secret);
    // For another registry the list says nothing.
    await using other = await loggedIn(`auth.example.com:${server.port}`, {
      authorization: { tokenServers: new Map([[host, [origin]]]) },
    });
    expect((await failureOf(other.openBlob(descriptor))).code).toBe("REALM_REFUSED");
  });

  it("AU04 a token server in plain HTTP is REALM_REFUSED for an https registry, and hears nothing", async () => {
    await using plain = await startFaultServer(tokens, { address: PUBLIC_ADDRESS });
    for (const name of ["registry.example.com", "auth.example.com"]) {
      const registry = authorizingRegistry({
        serve,
        challenge: () => bearerChallenge(`http://${name}:${plain.port}/token`),
      });
      await using server = await startFaultServer(registry.script, {
        address: PUBLIC_ADDRESS,
        tls: certificate,
      });
      const host = `registry.example.com:${server.port}`;
      await using client = await loggedIn(host, {
        insecureHosts: [],
        network: { tls: new Map([[host, { authorities: [authority.file] }]]) },
      });
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REALM_REFUSED");
      expect(server.requests).toHaveLength(1);
    }
    expect(plain.connections).toBe(0);
  });

  it.each([["inside.example.com", "127.0.0.1"], ["intranet.example.com", PRIVATE_ADDRESS]])(
    "AU05 a token server of the same house at %s, which is not on the internet, is REALM_REFUSED when it is dialled",
    async (name, address) => {
      await using inside = await startFaultServer(tokens, { address, tls: certificate });
      const registry = authorizingRegistry({
        serve,
        challenge: () => bearerChallenge(`https://${name}:${inside.port}/token`),
      });
      await using server = await startFaultServer(registry.script, {
        address: PUBLIC_ADDRESS,
        tls: certificate,
      });
      const host = `registry.example.com:${server.port}`;
      await using client = await loggedIn(host, {
        insecureHosts: [],
        network: { tls: new Map([[host, { authorities: [authority.file] }]]) },
      });
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REALM_REFUSED");
      expect(inside.connections).toBe(0);
    },
  );

  it.each([
    ["another origin of the house", (port: number) => `http://auth.example.com:${port}/token`],
    ["this host", (port: number) => `http://127.0.0.1:${port}/token`],
    ["another port", (port: number) => `http://registry.example.com:${port}/token`],
  ])(
    "AU06 a token server that redirects to %s is REALM_REFUSED, and nothing is heard there",
    async (_name, to) => {
      await using elsewhere = await startFaultServer(tokens, { address: PUBLIC_ADDRESS });
      await using local = await startFaultServer(tokens);
      for (const port of [elsewhere.port, local.port]) {
        const registry = authorizingRegistry({ serve, answerToken: () => redirectTo(to(port)) });
        await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
        await using client = await loggedIn(`registry.example.com:${server.port}`);
        expect((await failureOf(client.openBlob(descriptor))).code).toBe("REALM_REFUSED");
        expect(server.requests).toHaveLength(2);
      }
      expect([elsewhere.connections, local.connections]).toEqual([0, 0]);
    },
  );

  it("AU06 a token server may redirect within its own origin", async () => {
    const registry = authorizingRegistry({
      serve,
      answerToken: (request, token) =>
        request.path.startsWith("/token/") ? tokenBody(token) : redirectTo("/token/"),
    });
    await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
    await using client = await loggedIn(`registry.example.com:${server.port}`);
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(registry.tokenRequests.map(({ headers }) => headers.authorization)).toEqual(
      Array(2).fill(basic("robot", password)),
    );
  });

  it.each(["Bearer", "Basic"])(
    "AU07 storage that answers 401 and asks for %s gets nothing, and no token is asked for",
    async (scheme) => {
      await using storage = await startFaultServer(() =>
        respond(401, {
          headers: {
            "WWW-Authenticate": scheme === "Basic" ? "Basic realm=x" : bearerChallenge(`${self}/token`),
          },
        }), { address: PUBLIC_ADDRESS });
      const self = `http://registry.example.com:${storage.port}`;
      const registry = authorizingRegistry({
        serve: () => redirectTo(`http://cdn.other.example:${storage.port}/blob`),
      });
      await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
      await using client = await loggedIn(`registry.example.com:${server.port}`);
      const failure = await failureOf(client.openBlob(descriptor));
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_DENIED", false]);
      expect([registry.tokenRequests.length, registry.registryRequests.length]).toEqual([1, 2]);
      expect(storage.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
    },
  );

  it.each([
    ["RP25", "another host", "cdn.other.example"],
    ["RP32", "another port of the same host", "registry.example.com"],
  ])("%s %s gets neither token nor password", async (_id, _where, name) => {
    for (const isBasic of [false, true]) {
      await using storage = await startFaultServer(serve, { address: PUBLIC_ADDRESS });
      const registry = authorizingRegistry({
        serve: () => redirectTo(`http://${name}:${storage.port}/blob`),
        ...(isBasic ? { challenge: () => "Basic realm=x", password: basic("robot", password) } : {}),
      });
      await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
      await using client = await loggedIn(`registry.example.com:${server.port}`);
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(storage.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
      for (const secret of [...SECRETS, ...registry.tokens]) expect(heardBy(storage)).not.toContain(secret);
    }
  });

  it("RP25 an upload's session elsewhere gets neither token nor password", async () => {
    await using storage = await startFaultServer(() => respond(201), { address: PUBLIC_ADDRESS });
    const registry = authorizingRegistry({
      serve: () => respond(202, { headers: { Location: `http://cdn.other.example:${storage.port}/u` } }),
    });
    await using server = await startFaultServer(registry.script, { address: PUBLIC_ADDRESS });
    await using client = await loggedIn(`registry.example.com:${server.port}`);
    await client.pushBlob(descriptor, () => Promise.resolve(streamOf(bytes)));
    expect(storage.requests).toHaveLength(1);
    for (const secret of [...SECRETS, ...registry.tokens]) expect(heardBy(storage)).not.toContain(secret);
  });

  it("AU18 a password goes over plain HTTP only where the user says so: not to an unlisted registry", async () => {
    await using plain = await startFaultServer(
      () => respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } }),
      {
        address: PUBLIC_ADDRESS,
      },
    );
    await using client = await loggedIn(`registry.example.com:${plain.port}`, {
      insecureHosts: [],
      limits: QUICK,
    });
    // The server waits for a request that it can read, and we for its part of the handshake.
    expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_TIMEOUT");
    expect(plain.connections).toBeGreaterThan(0);
    expect(plain.requests).toEqual([]);
  });

  it("AU18 not to an unlisted mirror either, and to a listed one", async () => {
    await using mirror = await startFaultServer(
      (request) =>
        request.headers.authorization === basic("robot", password)
          ? serve(request)
          : respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } }),
      { address: PUBLIC_ADDRESS },
    );
    await using server = await startFaultServer(serve, { address: PUBLIC_ADDRESS });
    const mirrorHost = `auth.example.com:${mirror.port}`;
    const host = `registry.example.com:${server.port}`;
    for (const isListed of [false, true]) {
      const place = {
        baseUrl: new URL(`http://${mirrorHost}/v2/`),
        resolves: true,
        pulls: true,
        headers: {},
      };
      // Logged in at the mirror alone.
      await using client = await loggedIn(mirrorHost, {
        host,
        insecureHosts: [host, ...(isListed ? [mirrorHost] : [])],
        findPlaces: () => Promise.resolve({ mirrors: [place] }),
      });
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      const heard = heardBy(mirror);
      for (const secret of SECRETS) expect(heardBy(server)).not.toContain(secret);
      expect(heard.includes(SECRETS[1]!)).toBe(isListed);
      expect([mirror.requests.length, server.requests.length]).toEqual(isListed ? [3, 1] : [1, 1]);
    }
  });

  it("AU23 a redirect from https to http on the same name is refused, and the token stays", async () => {
    await using plain = await startFaultServer(serve, { address: PUBLIC_ADDRESS });
    const registry = authorizingRegistry({
      serve: () => redirectTo(`http://registry.example.com:${plain.port}/blob`),
      challenge: () => bearerChallenge(`https://registry.example.com:${server.port}/token`),
    });
    await using server: FaultServer = await startFaultServer(registry.script, {
      address: PUBLIC_ADDRESS,
      tls: certificate,
    });
    const host = `registry.example.com:${server.port}`;
    await using client = await loggedIn(host, {
      insecureHosts: [],
      network: { tls: new Map([[host, { authorities: [authority.file] }]]) },
    });
    expect((await failureOf(client.openBlob(descriptor))).code).toBe("REDIRECT_REFUSED");
    expect(registry.tokenRequests).toHaveLength(1);
    expect(plain.connections).toBe(0);
  });
});
