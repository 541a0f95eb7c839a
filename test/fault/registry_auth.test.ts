import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { RegistryClientOptions } from "../../src/registry/registry_client.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { Registries } from "../../src/registry/registries.ts";
import {
  type AuthorizingRegistry,
  authorizingRegistry,
  basic,
  bearerChallenge,
  canary,
  heardBy,
  tokenBody,
} from "../support/authorizing_registry.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  type FaultServer,
  respond,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { collect, streamOf } from "../support/streams.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const { bytes, descriptor } = randomBlob(1000);
const serve = (request: SeenRequest) => serveRange(request, bytes);

type Login = { readonly username: string; readonly password: string };

/** Writes what `docker login` would. */
async function logIn(host: string, { username, password }: Login): Promise<string> {
  const path = join(directory(), `auth-${randomBytes(4).toString("hex")}.json`);
  const auth = Buffer.from(`${username}:${password}`).toString("base64");
  await writeFile(path, JSON.stringify({ auths: { [host]: { auth } } }), { mode: 0o600 });
  return path;
}

type Rig = { readonly server: FaultServer; readonly client: RegistryClient; readonly login: Login };

async function withAuthorizing(
  registry: Pick<AuthorizingRegistry, "script">,
  options: { readonly loggedIn?: boolean; readonly login?: Login } & Partial<RegistryClientOptions>,
  body: (rig: Rig) => Promise<void>,
): Promise<void> {
  const { loggedIn = false, login = { username: "robot", password: canary() }, ...settings } = options;
  await using server = await startFaultServer(registry.script);
  const files = loggedIn ? [await logIn(server.host, login)] : [];
  await using client = new RegistryClient({
    host: server.host,
    repository: "os/demo",
    limits: QUICK,
    authorization: { credentials: { files } },
    ...settings,
  });
  await body({ server, client, login });
}

const query = ({ path }: SeenRequest) => new URL(path, "http://x").searchParams;

describe("logging in", () => {
  it("AU01 an anonymous token is asked for, used, and used again", async () => {
    const registry = authorizingRegistry({ serve });
    await withAuthorizing(registry, {}, async ({ client }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(registry.tokenRequests).toHaveLength(1);
      expect(registry.registryRequests).toHaveLength(3);
      const [asked] = registry.tokenRequests;
      expect([...query(asked!)]).toEqual([["service", "the registry"], ["scope", "repository:os/demo:pull"]]);
      expect(asked?.headers.authorization).toBeUndefined();
    });
  });

  it("AU01 with a login, the token server is told it, and the registry gets the token alone", async () => {
    const registry = authorizingRegistry({ serve });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client, login }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(registry.tokenRequests.map(({ headers }) => headers.authorization)).toEqual([
        basic(login.username, login.password),
      ]);
      const [token] = registry.tokens;
      expect(registry.registryRequests.map(({ headers }) => headers.authorization)).toEqual([
        undefined,
        `Bearer ${token}`,
      ]);
    });
  });

  it.each([
    ["Basic", ['Basic realm="x"']],
    ["bASIC", ["bASIC realm=x, charset=UTF-8"]],
    ["Basic behind what is not known", ['Negotiate, Digest realm="a, b", nonce=x', 'Basic realm="x"']],
  ])("AU01 %s is answered with the login, once and then at once", async (_name, challenge) => {
    const login = { username: "robot", password: `${canary()}: ü` };
    const registry = authorizingRegistry({
      serve,
      challenge: () => challenge,
      password: basic(login.username, login.password),
    });
    await withAuthorizing(registry, { loggedIn: true, login }, async ({ client }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(registry.registryRequests).toHaveLength(3);
    });
  });

  it.each(["one field", "two fields"])("AU01 of Basic and Bearer in %s, Bearer is taken", async (fields) => {
    const registry = authorizingRegistry({
      serve,
      challenge: (self) => {
        const all = ['Basic realm="x"', bearerChallenge(`${self}/token`).replace("Bearer", "BeArEr")];
        return fields === "one field" ? all.join(", ") : all;
      },
    });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(registry.tokenRequests).toHaveLength(1);
      expect(registry.registryRequests[0]?.headers.authorization).toBeUndefined();
    });
  });

  it.each([
    ["nothing", [], "REGISTRY_UNAUTHORIZED"],
    ["what is not known", ["Negotiate"], "REGISTRY_UNAUTHORIZED"],
    ["Basic, without a login", ["Basic realm=x"], "REGISTRY_UNAUTHORIZED"],
    ["Bearer without a realm", ["Bearer service=x"], "REGISTRY_PROTOCOL"],
    ["an unterminated quote", ['Bearer realm="x'], "REGISTRY_PROTOCOL"],
    ["two realms", ["Bearer realm=a, realm=b"], "REGISTRY_PROTOCOL"],
    ["10,000 characters of nonsense", [`Bearer ${'=\\"'.repeat(3_333)}`], "REGISTRY_PROTOCOL"],
    ["64 KiB", [`Bearer realm="${"a".repeat(65_000)}"`], "REGISTRY_PROTOCOL"],
  ])("AU02 a 401 that asks for %s is %s, and is not tried again", async (_name, challenge, code) => {
    const registry = authorizingRegistry({ serve, challenge: () => challenge });
    await withAuthorizing(registry, {}, async ({ client, server }) => {
      const failure = await failureOf(client.openBlob(descriptor));
      expect([failure.code, failure.retryable]).toEqual([code, false]);
      expect(server.requests).toHaveLength(1);
    });
  });

  it("AU09 a token body that is no such thing is REGISTRY_PROTOCOL, and 64 KiB of it are read", async () => {
    const word = canary();
    const answers: readonly Answer[] = [
      respond(200, { body: "<html>" }),
      respond(200),
      respond(200, { body: "{}" }),
      tokenBody(`${word}\r\nX-Injected: 1`),
      tokenBody(`${word}\0`),
      tokenBody("ключ"),
      tokenBody("a".repeat(1_000_000)),
      tokenBody(word, { access_token: `${word}x` }),
      respond(200, { headers: { "Content-Encoding": "gzip" }, body: "x" }),
      // 64 KiB and a byte, and then nothing: whoever wants more waits for it, which is told as another failure.
      [
        { send: "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n" },
        { send: Buffer.alloc(65_537, " ") },
        { hang: true },
      ],
    ];
    for (const answer of answers) {
      const registry = authorizingRegistry({ serve, answerToken: () => answer });
      await withAuthorizing(registry, {}, async ({ client, server }) => {
        const failure = await failureOf(client.openBlob(descriptor));
        expect([failure.code, failure.retryable]).toEqual(["REGISTRY_PROTOCOL", false]);
        expect(failure.message).not.toContain(word);
        expect(server.requests).toHaveLength(2);
      });
    }
  });

  it("AU10 a token that ends in mid-download is renewed once, and the download goes on where it was", async () => {
    const { bytes, descriptor } = randomBlob(3_000_000);
    const registry: AuthorizingRegistry = authorizingRegistry({
      serve: (request, count) => {
        if (count > 1) return serveRange(request, bytes);
        registry.tokens.clear();
        return cutAfter(serveRange(request, bytes), 2_000_000, "reset");
      },
    });
    await withAuthorizing(registry, {}, async ({ client, server }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(registry.tokenRequests).toHaveLength(2);
      expect(registry.registryRequests.at(-1)?.headers.range).toMatch(/^bytes=[1-9]/);
      expect(server.sentBytes).toBeLessThanOrEqual(descriptor.sizeBytes + 1024 * 1024);
    });
  });

  it("AU10 a token that ends between the parts of an upload is renewed, and the upload is made anew", async () => {
    const registry: AuthorizingRegistry = authorizingRegistry({
      serve: (request, count) => {
        if (request.method === "PUT") return respond(201);
        // Good for the POST, and over when the content comes.
        if (count < 3) registry.tokens.clear();
        return respond(202, { headers: { Location: "/v2/os/demo/blobs/uploads/x" } });
      },
    });
    await withAuthorizing(registry, {}, async ({ client }) => {
      await client.pushBlob(descriptor, () => Promise.resolve(streamOf(bytes)));
      expect(registry.tokenRequests.map((request) => query(request).get("scope"))).toEqual(
        Array(2).fill("repository:os/demo:pull,push"),
      );
      const sent = registry.registryRequests.map(({ method, body }) => [method, body.length]);
      expect(sent).toEqual([["POST", 0], ["POST", 0], ["PUT", 1000], ["POST", 0], ["PUT", 1000]]);
    });
  });

  it.each([[false, "REGISTRY_UNAUTHORIZED"], [true, "REGISTRY_DENIED"]])(
    "AU11 a registry that always answers 401 is asked twice; logged in is %s: %s",
    async (loggedIn, code) => {
      const registry = authorizingRegistry({ serve, password: "never" });
      await withAuthorizing(registry, { loggedIn }, async ({ client, login }) => {
        const failure = await failureOf(client.openBlob(descriptor));
        expect([failure.code, failure.details.status]).toEqual([code, 401]);
        expect(failure.message).not.toContain(login.password);
        expect(registry.registryRequests).toHaveLength(2);
        expect(registry.tokenRequests).toHaveLength(1);
      });
    },
  );

  it("AU11 a password that is refused is not shown again", async () => {
    const registry = authorizingRegistry({ serve, password: "never", challenge: () => "Basic realm=x" });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client }) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_DENIED");
      expect(registry.registryRequests).toHaveLength(2);
    });
  });

  it.each([
    [401, false, "REGISTRY_UNAUTHORIZED", 1],
    [401, true, "REGISTRY_DENIED", 1],
    [403, true, "REGISTRY_DENIED", 1],
    [404, true, "REGISTRY_NOT_FOUND", 1],
    [429, true, "REGISTRY_RATE_LIMITED", 3],
    [503, true, "REGISTRY_UNAVAILABLE", 3],
  ])("a token server's %i; logged in is %s: %s", async (status, loggedIn, code, tokenRequests) => {
    const registry = authorizingRegistry({ serve, answerToken: () => respond(status) });
    await withAuthorizing(registry, { loggedIn }, async ({ client, login }) => {
      const failure = await failureOf(client.openBlob(descriptor));
      expect(failure.code).toBe(code);
      expect(failure.message).toContain("token server answered");
      expect(failure.message).not.toContain(login.password);
      expect(registry.tokenRequests).toHaveLength(tokenRequests);
    });
  });

  it("a token server that hangs is REGISTRY_TIMEOUT", async () => {
    const registry = authorizingRegistry({ serve, answerToken: () => [{ hang: true }] });
    await withAuthorizing(registry, {}, async ({ client }) => {
      const failure = await failureOf(client.openBlob(descriptor));
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_TIMEOUT", true]);
    });
  });

  it("AU12 two hundred requests whose token ends together fetch one new token", async () => {
    const registry = authorizingRegistry({ serve });
    await withAuthorizing(registry, {}, async ({ client }) => {
      await collect(client.openBlob(descriptor));
      registry.tokens.clear();
      const all = await Promise.all(Array.from({ length: 200 }, () => collect(client.openBlob(descriptor))));
      expect(all.every((each) => Buffer.from(each).equals(bytes))).toBe(true);
      expect(registry.tokenRequests).toHaveLength(2);
    });
  });

  it("AU13 a token is renewed before its time is over, counted on a steady clock from when it was asked for", async () => {
    let nowMs = 5_000;
    const registry = authorizingRegistry({
      serve,
      answerToken: (_request, token) =>
        tokenBody(token, { expires_in: 100, issued_at: "2099-01-01T00:00:00Z" }),
    });
    await withAuthorizing(registry, { authorization: { now: () => nowMs } }, async ({ client }) => {
      for (const [atMs, tokenRequests] of [[0, 1], [89_000, 1], [91_000, 2], [179_000, 2]] as const) {
        nowMs = 5_000 + atMs;
        await collect(client.openBlob(descriptor));
        expect(registry.tokenRequests).toHaveLength(tokenRequests);
      }
      // None of them found out by being refused.
      expect(registry.registryRequests).toHaveLength(5);
    });
  });

  it.each([
    "repository:os/demo:pull,push,delete",
    "repository:somebody/else:pull",
    "registry:catalog:*",
    "",
  ])("AU15 a challenge that asks for %j gets a token for our repository, to pull", async (scope) => {
    const registry = authorizingRegistry({
      serve,
      challenge: (self) => bearerChallenge(`${self}/token?scope=registry:catalog:*&service=x&kept=1`, scope),
    });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client }) => {
      await collect(client.openBlob(descriptor));
      expect([...query(registry.tokenRequests[0]!)]).toEqual([
        ["kept", "1"],
        ["service", "the registry"],
        ["scope", "repository:os/demo:pull"],
      ]);
    });
  });

  it("AU16 tokens are of one repository at one origin, and so are passwords", async () => {
    const [one, other] = [authorizingRegistry({ serve }), authorizingRegistry({ serve })];
    await using oneServer = await startFaultServer(one.script);
    await using otherServer = await startFaultServer(other.script);
    const login = { username: "robot", password: canary() };
    const files = [await logIn(oneServer.host, login)];
    await using registries = new Registries({ limits: QUICK, authorization: { credentials: { files } } });
    for (const host of [oneServer.host, otherServer.host]) {
      for (const repository of ["os/demo", "os/other"]) {
        const client = new RegistryClient({ host, repository, registries });
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      }
    }
    const scopes = ["repository:os/demo:pull", "repository:os/other:pull"];
    for (const registry of [one, other]) {
      expect(registry.tokenRequests.map((request) => query(request).get("scope"))).toEqual(scopes);
      // Each repository was asked without a token first, and then with its own.
      expect(registry.registryRequests.map(({ headers }) => headers.authorization)).toEqual(
        [...registry.tokens].flatMap((token) => [undefined, `Bearer ${token}`]),
      );
    }
    const secrets = [login.password, basic(login.username, login.password), ...one.tokens];
    for (const secret of secrets) expect(heardBy(otherServer)).not.toContain(secret);
  });

  it("AU21 a 403 is REGISTRY_DENIED at once", async () => {
    const registry = authorizingRegistry({
      serve: () => respond(403, { body: '{"errors":[{"code":"DENIED"}]}' }),
    });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client }) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_DENIED");
      expect([registry.registryRequests.length, registry.tokenRequests.length]).toEqual([2, 1]);
    });
  });

  it("AU22 a login that is rotated on disk counts from the next 401 on", async () => {
    const passwords = [canary(), canary()];
    let current = 0;
    const registry: AuthorizingRegistry = authorizingRegistry({
      serve,
      answerToken: (request, token) =>
        request.headers.authorization === basic("robot", passwords[current]!)
          ? tokenBody(token)
          : respond(401),
    });
    await using server = await startFaultServer(registry.script);
    const file = await logIn(server.host, { username: "robot", password: passwords[0]! });
    await using client = new RegistryClient({
      host: server.host,
      repository: "os/demo",
      limits: QUICK,
      authorization: { credentials: { files: [file] } },
    });
    await collect(client.openBlob(descriptor));
    current = 1;
    registry.tokens.clear();
    await writeFile(
      file,
      (await readFile(file, "utf8")).replace(
        Buffer.from(`robot:${passwords[0]}`).toString("base64"),
        Buffer.from(`robot:${passwords[1]}`).toString("base64"),
      ),
    );
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(registry.tokenRequests).toHaveLength(2);
  });

  it("AU22 so does a password for Basic", async () => {
    const passwords = [canary(), canary()];
    let current = 0;
    await using server = await startFaultServer((request) =>
      request.headers.authorization === basic("robot", passwords[current]!)
        ? serve(request)
        : respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } })
    );
    const file = await logIn(server.host, { username: "robot", password: passwords[0]! });
    await using client = new RegistryClient({
      host: server.host,
      repository: "os/demo",
      limits: QUICK,
      authorization: { credentials: { files: [file] } },
    });
    await collect(client.openBlob(descriptor));
    current = 1;
    const auth = Buffer.from(`robot:${passwords[1]}`).toString("base64");
    await writeFile(file, JSON.stringify({ auths: { [server.host]: { auth } } }));
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    expect(server.requests).toHaveLength(4);
  });

  it("AU24 a refresh token that a server gives is kept nowhere, and sent nowhere", async () => {
    const refresh = canary();
    const registry = authorizingRegistry({
      serve,
      answerToken: (_request, token) => tokenBody(token, { refresh_token: refresh, identitytoken: refresh }),
    });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client, server }) => {
      await collect(client.openBlob(descriptor));
      registry.tokens.clear();
      await collect(client.openBlob(descriptor));
      expect(registry.tokenRequests).toHaveLength(2);
      expect(heardBy(server)).not.toContain(refresh);
    });
  });

  it("AU24 an identity token of the user's own goes to the token server, in the body, and nowhere else", async () => {
    const identitytoken = canary();
    const registry = authorizingRegistry({
      serve,
      answerToken: (_request, token) =>
        respond(200, { body: JSON.stringify({ access_token: token, refresh_token: canary() }) }),
    });
    await using server = await startFaultServer(registry.script);
    const path = join(directory(), "identity.json");
    await writeFile(path, JSON.stringify({ auths: { [server.host]: { identitytoken } } }), { mode: 0o600 });
    await using client = new RegistryClient({
      host: server.host,
      repository: "os/demo",
      limits: QUICK,
      authorization: { credentials: { files: [path] } },
    });
    expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
    const [asked] = registry.tokenRequests;
    expect([asked?.method, asked?.path, asked?.headers.authorization]).toEqual(["POST", "/token", undefined]);
    expect(Object.fromEntries(new URLSearchParams(new TextDecoder().decode(asked?.body)))).toEqual({
      grant_type: "refresh_token",
      client_id: "bootshim",
      service: "the registry",
      scope: "repository:os/demo:pull",
      refresh_token: identitytoken,
    });
    expect(heardBy({ requests: registry.registryRequests })).not.toContain(identitytoken);
  });

  it("AU24 an identity token that the token server does not take is REGISTRY_DENIED", async () => {
    const identitytoken = canary();
    const registry = authorizingRegistry({
      serve,
      answerToken: () => respond(400, { body: `{"error":"invalid_grant","said":"${identitytoken}"}` }),
    });
    await using server = await startFaultServer(registry.script);
    const path = join(directory(), "identity.json");
    await writeFile(path, JSON.stringify({ auths: { [server.host]: { identitytoken } } }), { mode: 0o600 });
    await using client = new RegistryClient({
      host: server.host,
      repository: "os/demo",
      limits: QUICK,
      authorization: { credentials: { files: [path] } },
    });
    const failure = await failureOf(client.openBlob(descriptor));
    expect(failure.code).toBe("REGISTRY_DENIED");
    expect(failure.message).toContain("invalid_grant");
    expect(failure.message).not.toContain(identitytoken);
  });

  it("AU19 a server that says our secrets back does not get them into an error", async () => {
    const echo = (request: SeenRequest) =>
      respond(403, { body: `you said ${request.headers.authorization} and so on` });
    const registry = authorizingRegistry({ serve: echo });
    await withAuthorizing(registry, { loggedIn: true }, async ({ client }) => {
      const { message, details } = await failureOf(client.openBlob(descriptor));
      expect(message).toContain("[secret]");
      for (const token of registry.tokens) expect(JSON.stringify([message, details])).not.toContain(token);
    });
    const talkative = authorizingRegistry({ serve, answerToken: (request) => echo(request) });
    await withAuthorizing(talkative, { loggedIn: true }, async ({ client, login }) => {
      const { message } = await failureOf(client.openBlob(descriptor));
      expect(message).toContain("and so on");
      expect(message).not.toContain(login.password);
      expect(message).not.toContain(basic(login.username, login.password).slice(6));
    });
  });
});
