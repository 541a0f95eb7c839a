/**
 * Canaries: logins that must turn up nowhere but on the wire to their own origin. The real command, a real registry with
 * a token server, logs at their loudest, and a look at every process while it runs.
 */
import { randomUUID } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { canary } from "../support/authorizing_registry.ts";
import { bootshim, type Ended, startBootshim } from "../support/bootshim_command.ts";
import { TestAuthority } from "../support/certificates.ts";
import { osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import { streamOf } from "../support/streams.ts";
import { startTokenServer, TOKEN_ISSUER, TOKEN_SERVICE, type TokenServer } from "../support/token_server.ts";

const login = { username: "robot", password: canary() };
/** In every spelling that a header, a file or a body may have of it. */
const SECRETS = [
  login.password,
  Buffer.from(`${login.username}:${login.password}`).toString("base64"),
  Buffer.from(login.password).toString("base64").slice(0, 24),
];

let work: string;
let authority: TestAuthority;
let tokens: TokenServer;
let registry: RegistryServer;
let reference: string;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-secrets-"));
  authority = await TestAuthority.make();
  tokens = await startTokenServer({ certificate: await authority.issue({ name: "token server" }), ...login });
  registry = await startRegistryServer({
    auth: {
      token: {
        realm: tokens.realm,
        service: TOKEN_SERVICE,
        issuer: TOKEN_ISSUER,
        rootcertbundle: authority.file,
      },
    },
  });
  reference = `${registry.host}/os/demo:1`;
  const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() });
  const passwordFile = join(work, "password");
  await writeFile(passwordFile, login.password, { mode: 0o600 });
  await using client = new RegistryClient({
    host: registry.host,
    repository: "os/demo",
    authorization: {
      credentials: { hosts: new Map([[registry.host, { username: login.username, passwordFile }]]) },
    },
  });
  for (const { bytes, descriptor } of [image.config, ...Object.values(image.layers)]) {
    await client.pushBlob(descriptor, () => Promise.resolve(streamOf(bytes)));
  }
  await client.pushDocument(image.manifest, "1");
});
afterAll(async () => {
  await registry?.stop();
  await tokens?.stop();
  await authority?.[Symbol.asyncDispose]();
  await rm(work, { recursive: true, force: true });
});

/** The command lines and environments of all processes that our processes have started. */
async function processesBelow(pid: number): Promise<string> {
  const read = (path: string) => readFile(path, "latin1").catch(() => "");
  const parents = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    const stat = await read(`/proc/${name}/stat`);
    parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
  }
  const isBelow = (each: number | undefined): boolean =>
    each === pid || (each !== undefined && each > 1 && isBelow(parents.get(each)));
  const texts = [...parents.keys()].filter((each) => isBelow(each)).flatMap((each) => [
    read(`/proc/${each}/cmdline`),
    read(`/proc/${each}/environ`),
  ]);
  return (await Promise.all(texts)).join("\n");
}

type Watched = Ended & { readonly processes: string };

async function watch(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<Watched> {
  const child = startBootshim(argv, { root: join(work, `root-${randomUUID()}`), environment });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => output[name] += text);
  }
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  let isOver = false;
  void ended.then(() => isOver = true);
  const seen: string[] = [];
  while (!isOver) {
    seen.push(await processesBelow(child.pid ?? -1));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { exitCode: await ended, ...output, processes: seen.join("\n") };
}

/** Every file under a folder, its name and its content. */
async function allFilesIn(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const texts = entries.map(async (entry) =>
    entry.name + (entry.isFile() ? await readFile(join(entry.parentPath, entry.name), "latin1") : "")
  );
  return (await Promise.all(texts)).join("\n");
}

function expectNoSecret(...texts: readonly string[]): void {
  for (const text of texts) {
    for (const secret of SECRETS) expect(text.includes(secret)).toBe(false);
    // A token: three words of base64url.
    expect(text).not.toMatch(/eyJ[\w-]{20,}\.eyJ[\w-]{20,}\./);
  }
}

/** A docker configuration with a helper that knows the login and waits a while, so that it is seen. */
async function dockerConfig(script: string): Promise<Readonly<Record<string, string>>> {
  const folder = await mkdtemp(join(work, "docker-"));
  await writeFile(join(folder, "config.json"), JSON.stringify({ credsStore: "canary" }), { mode: 0o600 });
  await writeFile(
    join(folder, "secret"),
    JSON.stringify({ Username: login.username, Secret: login.password }),
  );
  const helper = join(folder, "docker-credential-canary");
  await writeFile(helper, `#!/bin/sh\n${script}\n`);
  await chmod(helper, 0o700);
  return { DOCKER_CONFIG: folder, PATH: `${folder}:${process.env["PATH"]}` };
}

describe("AU19 secrets", () => {
  it.each([[["-o", "json"]], [["--log-format", "json"]]])(
    "AU19 of a helper are nowhere in a pull with %j and all logs",
    async (flags) => {
      const environment = await dockerConfig('sleep 1; cat "$DOCKER_CONFIG/secret"');
      const watched = await watch(["pull", reference, "--log-level", "trace", ...flags], environment);
      expect([watched.exitCode, watched.stderr.includes("Error")]).toEqual([0, false]);
      expect(watched.processes).toContain("docker-credential-canary");
      expectNoSecret(watched.stdout, watched.stderr, watched.processes);
      const roots = (await readdir(work)).filter((name) => name.startsWith("root-"));
      for (const root of roots) expectNoSecret(await allFilesIn(join(work, root)));
    },
  );

  it("AU19 of a password file and of docker's file are nowhere in a pull", async () => {
    const passwordFile = join(work, "password");
    const config = join(work, "config.toml");
    await writeFile(
      config,
      `[registry.host."${registry.host}"]\nusername = "robot"\npassword_file = "${passwordFile}"\n`,
    );
    const folder = await mkdtemp(join(work, "docker-"));
    const auths = { [registry.host]: { auth: SECRETS[1] } };
    await writeFile(join(folder, "config.json"), JSON.stringify({ auths }), { mode: 0o644 });
    for (const environment of [{ BOOTSHIM_CONFIG: config }, { DOCKER_CONFIG: folder }]) {
      const watched = await watch(["pull", reference, "--log-level", "trace"], environment);
      expect([watched.exitCode, watched.stdout]).toEqual([0, expect.stringContaining("sha256:")]);
      expectNoSecret(watched.stdout, watched.stderr, watched.processes);
      // Everybody may read docker's file here, and the user is told so.
      expect(watched.stderr.includes("chmod 600")).toBe("DOCKER_CONFIG" in environment);
    }
  });

  it.each([
    ["a broken answer", 'cat "$DOCKER_CONFIG/secret" "$DOCKER_CONFIG/secret"', "CREDENTIALS_INVALID", 78],
    ["a failing helper", 'cat "$DOCKER_CONFIG/secret"; exit 3', "CREDENTIALS_INVALID", 78],
    ["a repository that is not there", 'cat "$DOCKER_CONFIG/secret"', "REGISTRY_NOT_FOUND", 66],
  ])("AU19 are not in the error after %s", async (name, script, code, exitCode) => {
    const environment = await dockerConfig(script);
    const target = name.startsWith("a repository") ? `${registry.host}/os/none:1` : reference;
    const ended = await bootshim(["pull", target, "-o", "json", "--log-level", "trace"], {
      root: join(work, `root-${randomUUID()}`),
      environment,
    });
    expect(ended.exitCode).toBe(exitCode);
    expect(ended.stderr).toContain(code);
    expectNoSecret(ended.stdout, ended.stderr);
  });

  it("AU19 a refused login is not in the error", async () => {
    const folder = await mkdtemp(join(work, "docker-"));
    const wrong = canary();
    const auth = Buffer.from(`robot:${wrong}`).toString("base64");
    await writeFile(join(folder, "config.json"), JSON.stringify({ auths: { [registry.host]: { auth } } }), {
      mode: 0o600,
    });
    const ended = await bootshim(["pull", reference, "-o", "json", "--log-level", "trace"], {
      root: join(work, `root-${randomUUID()}`),
      environment: { DOCKER_CONFIG: folder },
    });
    expect(ended.exitCode).toBe(77);
    expect(JSON.parse(ended.stderr.slice(ended.stderr.lastIndexOf('{"error"')))).toMatchObject({
      error: { code: "REGISTRY_DENIED", retryable: false },
    });
    for (const secret of [wrong, auth]) expect(ended.stderr + ended.stdout).not.toContain(secret);
  });
});
