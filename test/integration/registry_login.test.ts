import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { canary } from "../support/authorizing_registry.ts";
import { randomBlob, randomManifest } from "../support/blobs.ts";
import { TestAuthority } from "../support/certificates.ts";
import { codeOf } from "../support/failures.ts";
import { htpasswdLine } from "../support/htpasswd.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import { collect, streamOf } from "../support/streams.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";
import { startTokenServer, TOKEN_ISSUER, TOKEN_SERVICE, type TokenServer } from "../support/token_server.ts";

const run = promisify(execFile);
const directory = useTemporaryDirectory();
const login = { username: "robot", password: canary() };

/** Logs in as users do. @returns the file that skopeo wrote */
async function skopeoLogin(host: string): Promise<string> {
  const file = join(directory(), "auth.json");
  const child = run("skopeo", [
    ...["login", "--authfile", file, "--tls-verify=false"],
    ...["--username", login.username, "--password-stdin", host],
  ]);
  child.child.stdin?.end(login.password);
  await child;
  return file;
}

function clientOf(host: string, files: readonly string[], repository = "os/demo"): RegistryClient {
  return new RegistryClient({ host, repository, authorization: { credentials: { files } } });
}

/** Pushes and pulls an image with a layer of several chunks, mounts the layer elsewhere, and reads it there. */
async function pushAndPull(host: string, files: readonly string[]): Promise<void> {
  const repository = `os/${randomBytes(4).toString("hex")}`;
  await using client = new RegistryClient({
    host,
    repository,
    limits: { chunkBytes: 1_000_000 },
    authorization: { credentials: { files } },
  });
  const [config, layer] = [randomBlob(300), randomBlob(2_500_000)];
  for (const { bytes, descriptor } of [config, layer]) {
    await client.pushBlob(descriptor, (startByte) => Promise.resolve(streamOf(bytes.subarray(startByte))));
  }
  const document = randomManifest({ config: config.descriptor, layers: [layer.descriptor] });
  await client.pushDocument(document, "v1");
  expect(await client.resolve("v1")).toEqual(document);
  expect(await collect(client.openBlob(layer.descriptor))).toEqual(layer.bytes);
  await using elsewhere = clientOf(host, files, `${repository}-copy`);
  const never = () => Promise.reject(new Error("the blob was to be mounted"));
  expect(await elsewhere.pushBlob(layer.descriptor, never, { mountFrom: repository })).toBe("mounted");
  expect(await collect(elsewhere.openBlob(layer.descriptor))).toEqual(layer.bytes);
}

describe("docker-registry with passwords", () => {
  let folder: string;
  let server: RegistryServer;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "bootshim-htpasswd-"));
    await writeFile(join(folder, "htpasswd"), htpasswdLine(login.username, login.password));
    server = await startRegistryServer({
      auth: { htpasswd: { realm: "test", path: join(folder, "htpasswd") } },
    });
  });
  afterAll(async () => {
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it("AU01 who has logged in with skopeo pushes, mounts and pulls", async () => {
    await pushAndPull(server.host, [await skopeoLogin(server.host)]);
  });

  it("AU01 nobody is REGISTRY_UNAUTHORIZED, and a wrong password REGISTRY_DENIED", async () => {
    await using nobody = clientOf(server.host, []);
    expect(await codeOf(nobody.resolve("v1"))).toBe("REGISTRY_UNAUTHORIZED");
    const file = join(directory(), "wrong.json");
    const auth = Buffer.from(`${login.username}:wrong`).toString("base64");
    await writeFile(file, JSON.stringify({ auths: { [server.host]: { auth } } }), { mode: 0o600 });
    await using wrong = clientOf(server.host, [file]);
    expect(await codeOf(wrong.resolve("v1"))).toBe("REGISTRY_DENIED");
  });
});

describe("docker-registry with a token server", () => {
  let authority: TestAuthority;
  let tokens: TokenServer;
  let server: RegistryServer;
  beforeAll(async () => {
    authority = await TestAuthority.make();
    tokens = await startTokenServer({
      certificate: await authority.issue({ name: "token server" }),
      ...login,
      anonymous: ["pull"],
    });
    server = await startRegistryServer({
      auth: {
        token: {
          realm: tokens.realm,
          service: TOKEN_SERVICE,
          issuer: TOKEN_ISSUER,
          rootcertbundle: authority.file,
        },
      },
    });
  });
  afterAll(async () => {
    await server?.stop();
    await tokens?.stop();
    await authority?.[Symbol.asyncDispose]();
  });

  it("AU01 AU15 who has logged in with skopeo pushes, mounts and pulls, with a token for each need", async () => {
    const file = await skopeoLogin(server.host);
    tokens.requests.length = 0;
    await pushAndPull(server.host, [file]);
    const scopes = tokens.requests.map(({ scopes }) =>
      scopes.map((scope) => scope.replaceAll(/[0-9a-f]{8}/g, "X"))
    );
    expect(scopes).toEqual([
      ["repository:os/X:pull,push"],
      ["repository:os/X:pull"],
      ["repository:os/X-copy:pull,push", "repository:os/X:pull"],
      ["repository:os/X-copy:pull"],
    ]);
    expect(tokens.requests.every(({ user }) => user === login.username)).toBe(true);
  });

  it("AU01 nobody may pull what is public, and push nothing", async () => {
    const file = await skopeoLogin(server.host);
    const { bytes, descriptor } = randomBlob(1000);
    const open = () => Promise.resolve(streamOf(bytes));
    await using owner = clientOf(server.host, [file], "os/public");
    await owner.pushBlob(descriptor, open);
    await using nobody = clientOf(server.host, [], "os/public");
    expect(await collect(nobody.openBlob(descriptor))).toEqual(bytes);
    expect(await codeOf(nobody.pushBlob(randomBlob(10).descriptor, open))).toBe("REGISTRY_UNAUTHORIZED");
  });

  it("a password that the token server does not know is REGISTRY_DENIED", async () => {
    const file = join(directory(), "wrong.json");
    const auth = Buffer.from(`${login.username}:wrong`).toString("base64");
    await writeFile(file, JSON.stringify({ auths: { [server.host]: { auth } } }), { mode: 0o600 });
    await using wrong = clientOf(server.host, [file]);
    expect(await codeOf(wrong.resolve("v1"))).toBe("REGISTRY_DENIED");
  });
});
