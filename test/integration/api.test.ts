/** The real service over its real socket: prepare, operations, machines, cache, events; and callers that misbehave. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, lstat, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { BootshimClient } from "../../src/api/client.ts";
import { publishDemo, type PublishedDemo } from "../support/api_kit.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy } from "../support/registry_proxy.ts";
import { ask, type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let demo: PublishedDemo;
let proxy: RegistryProxy;
let service: ServiceProcess;
let reference: string;
let root: string;
let config: string;

beforeAll(async () => {
  demo = await publishDemo();
  ({ work, proxy, reference } = demo);
  root = join(work, "root");
  config = join(work, "config.toml");
  await writeFile(config, `[registry]\ninsecure = ["${proxy.host}"]\n`);
  service = await startService({ root, environment: { BOOTSHIM_CONFIG: config } });
});

afterAll(async () => {
  await service.stop();
  await demo.stop();
});

describe("prepare", () => {
  it("gives the document of the command line, and transfers once", async () => {
    const first = await service.ask("/v1/prepare", { body: { reference } });
    expect(first.status).toBe(200);
    const document = prepareDocument.parse(first.json);
    expect(document).toMatchObject({ reference, cached: false, boot: { mode: "kernel" }, machine: null });
    proxy.requests.length = 0;
    const { json } = await service.ask("/v1/prepare", { body: { reference } });
    expect(json).toEqual({ ...document, cached: true, transferredBytes: 0 });
    expect(proxy.requests).toEqual([]);
    expect(await bootshimJson(["prepare", reference], { root })).toEqual(json);
  });

  it("AP10 asked for a hundred times at once makes one machine, and answers all alike", async () => {
    const id = `same-${randomWord()}`;
    const body = { reference, machine: { id, network: "none" } };
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => service.ask("/v1/prepare", { body })),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(await readdir(join(root, "machines"))).toContain(id);
    expect((await service.ask(`/v1/machines/${id}`, { method: "DELETE" })).status).toBe(200);
  });

  it("answers at once where the caller prefers, and tells the rest as an operation and as events", async () => {
    const id = `later-${randomWord()}`;
    const { status, headers } = await service.ask("/v1/prepare", {
      body: { reference, machine: { id, network: "none" } },
      headers: { prefer: "respond-async" },
    });
    expect(status).toBe(202);
    const location = String(headers["location"]);
    expect(location).toMatch(/^\/v1\/operations\/[0-9a-f-]{36}$/);
    // The stream ends by itself when the operation does.
    const { text } = await service.ask(`${location}/events`);
    expect(text).toMatch(/event: operation\.succeeded\n/);
    expect((await service.ask(location)).json).toMatchObject({
      state: "succeeded",
      result: { machine: { id } },
    });
  });
});

describe("machines", () => {
  it("are put, read, defined in words, and deleted; another wish is a conflict", async () => {
    const id = `vm-${randomWord()}`;
    const path = `/v1/machines/${id}`;
    const body = { reference, machine: { memoryBytes: 512 * 2 ** 20, network: "none" } };
    const put = await service.ask(path, { method: "PUT", body });
    expect([put.status, put.json]).toMatchObject([200, { machine: { id } }]);
    expect((await service.ask(path, { method: "PUT", body })).text).toBe(
      JSON.stringify({ ...prepareDocument.parse(put.json), cached: true, transferredBytes: 0 }),
    );
    const other = { reference, machine: { ...body.machine, cpus: 2 } };
    expect(await service.ask(path, { method: "PUT", body: other })).toMatchObject({
      status: 409,
      json: { code: "CONFLICT", details: { differing: ["cpus"] } },
    });
    expect(await service.ask(path)).toMatchObject({ status: 200, json: { id, machine: { id } } });
    expect((await service.ask(`${path}/domain.xml`)).text).toMatch(/^<domain /);
    expect((await service.ask(`${path}/domain.xml?fragment=os`)).text).toMatch(/^<os>/);
    const [xml, os, disks, command] = await Promise.all([
      ...["domain.xml", "domain.xml?fragment=os", "domain.xml?fragment=disks"].map(async (name) =>
        (await service.ask(`${path}/${name}`)).text
      ),
      service.ask(`${path}/qemu-command`).then(({ json }) => json),
    ]);
    expect((await service.ask(`${path}/definition`)).json).toEqual({
      domainXml: xml,
      fragments: { os, disks },
      qemuCommand: command,
    });
    expect((await service.ask(`${path}/qemu-command`)).json).toEqual(
      prepareDocument.parse(put.json).machine?.qemuCommand,
    );
    expect((await service.ask(path, { method: "DELETE" })).status).toBe(200);
    expect(await service.ask(path)).toMatchObject({ status: 404, json: { code: "MACHINE_NOT_FOUND" } });
  });
});

describe("the cache", () => {
  it("is listed, pinned, collected", async () => {
    const [image] = (await service.ask("/v1/images")).json as { reference: string; digest: string }[];
    expect(image?.reference).toBe(reference);
    const path = `/v1/images/${image?.digest}`;
    expect(await service.ask(`${path}/pin`, { method: "PUT" })).toMatchObject({
      status: 200,
      json: [{ pinned: true }],
    });
    expect(await service.ask(path, { method: "DELETE" })).toMatchObject({
      status: 409,
      json: { code: "IN_USE" },
    });
    expect((await service.ask(`${path}/pin`, { method: "DELETE" })).json).toMatchObject([{ pinned: false }]);
    expect(await service.ask("/v1/gc", { body: { dryRun: true } })).toMatchObject({
      status: 200,
      json: { dryRun: true },
    });
  });
});

describe("events", () => {
  it("AP15 continue where a reader left, and say when that is not possible", async () => {
    const read = async (lastEventId: string) => {
      const socket = connect(service.socketPath);
      let text = "";
      socket.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
      socket.write(`GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: ${lastEventId}\r\n\r\n`);
      for (let tries = 0; tries < 100 && !/^id: /m.test(text); tries++) await wait(20);
      socket.destroy();
      return text;
    };
    expect(await read("0")).toMatch(/event: image\.pulled\n/);
    expect(await read("999999")).toMatch(/event: resync\n/);
  });
});

describe("events of an image and its machine", () => {
  it("tell a pull from its end, and whose failure it was", async () => {
    const own = await startService({
      root: join(work, "events"),
      environment: { BOOTSHIM_CONFIG: config },
    });
    const log = new AbortController();
    try {
      const id = `told-${randomWord()}`;
      const path = `/v1/machines/${id}`;
      const put = (body: object) => own.ask(path, { method: "PUT", body });
      const missing = `${proxy.host}/os/none-${randomWord()}:1`;
      expect((await put({ reference, machine: { network: "none" } })).status).toBe(200);
      expect((await put({ reference, machine: { network: "user" } })).status).toBe(409);
      expect((await own.ask("/v1/prepare", { body: { reference: missing } })).status).toBe(404);
      expect((await own.ask(path, { method: "DELETE" })).status).toBe(200);
      const client = new BootshimClient({ socketPath: own.socketPath });
      const told: [string, Readonly<Record<string, unknown>>][] = [];
      for await (const { type, data } of client.events({ afterId: 0, signal: log.signal })) {
        const { at: _, ...rest } = data;
        if (/^(image|machine)\./.test(type)) told.push([type, rest]);
        if (type === "machine.released") break;
      }
      expect(told).toEqual([
        ["image.pulling", { reference }],
        ["image.pulled", expect.objectContaining({ reference, cached: false })],
        ["machine.prepared", { machine: id, reference }],
        ["machine.failed", { machine: id, reference, code: "CONFLICT" }],
        ["image.failed", { reference: missing, code: "REGISTRY_NOT_FOUND" }],
        ["machine.released", { machine: id }],
      ]);
    } finally {
      log.abort();
      await own.stop();
    }
  });
});

describe("the socket", () => {
  it.each(["000", "077"])(
    "AP01 has its mode under umask %s, in a directory nobody else enters",
    async (umask) => {
      const folder = await mkdtemp(join(tmpdir(), "bs-"));
      const path = join(folder, "run", "s");
      const child = spawn(
        "sh",
        [
          "-c",
          `umask ${umask}; exec "$0" serve --socket "${path}" --mode 0640`,
          join(process.cwd(), "scripts/bootshim"),
        ],
        { env: { ...process.env, BOOTSHIM_ROOT: root, BOOTSHIM_CONFIG: "/dev/null" }, stdio: "ignore" },
      );
      const ended = once(child, "close");
      try {
        let seen = 0;
        for (let tries = 0; tries < 2000 && seen === 0; tries++) {
          // The very first moment at which it can be seen.
          seen = await stat(path).then(({ mode }) => mode & 0o777, () => 0);
          if (seen === 0) await wait(2);
        }
        expect(seen).toBe(0o640);
        expect((await stat(join(folder, "run"))).mode & 0o027).toBe(0);
      } finally {
        child.kill("SIGTERM");
        await ended;
        await rm(folder, { recursive: true, force: true });
      }
    },
  );

  it("AP02 of a service that answers is left alone: BUSY; one of a dead service is replaced", async () => {
    const second = await bootshim(["serve", "--socket", service.socketPath, "-o", "json"], { root });
    expect([second.exitCode, JSON.parse(second.stderr)]).toMatchObject([75, { error: { code: "BUSY" } }]);
    expect((await service.ask("/healthz")).status).toBe(200);

    const first = await startService({ root: join(work, "dead") });
    const { socketPath } = first;
    const folder = await mkdtemp(join(tmpdir(), "bs-"));
    const kept = join(folder, "s");
    const dying = await startService({ root: join(work, "dead"), socketPath: kept });
    await dying.kill();
    expect((await lstat(kept)).isSocket()).toBe(true);
    const successor = await startService({ root: join(work, "dead"), socketPath: kept });
    expect((await successor.ask("/healthz")).status).toBe(200);
    expect(await successor.stop()).toBe(0);
    expect(socketPath).not.toBe(kept);
    expect(await first.stop()).toBe(0);
    await rm(folder, { recursive: true, force: true });
  });

  it("AP03 is never made in place of a file, a link or a directory, which stay as they are", async () => {
    const folder = await mkdtemp(join(work, "places-"));
    const file = join(folder, "file");
    await writeFile(file, "mine");
    await symlink(file, join(folder, "link"));
    for (const name of ["file", "link", "."]) {
      const { exitCode, stderr } = await bootshim(["serve", "--socket", join(folder, name), "-o", "json"], {
        root,
      });
      expect([exitCode, JSON.parse(stderr)]).toMatchObject([73, { error: { code: "CONFLICT" } }]);
    }
    expect((await readdir(folder)).sort()).toEqual(["file", "link"]);
  });

  it("AP04 answers no user who is not allowed, and reads nothing of the request", async () => {
    const only = await startService({
      root: join(work, "only"),
      argv: ["--allow-uid", "4711", "--mode", "0666"],
    });
    try {
      await chmod(join(only.socketPath, ".."), 0o755);
      const as = async (uid: number) => {
        const child = spawn("setpriv", [
          ...[`--reuid=${uid}`, "--clear-groups", "curl", "--silent", "--output", "/dev/null"],
          ...["--write-out", "%{http_code}", "--unix-socket", only.socketPath, "http://bootshim/healthz"],
        ]);
        let out = "";
        child.stdout.setEncoding("utf8").on("data", (text: string) => out += text);
        await once(child, "close");
        return out.trim();
      };
      expect(await as(4711)).toBe("200");
      expect(await as(4712)).toBe("000");
      expect((await ask(only.socketPath, "/healthz")).status).toBe(200);
    } finally {
      await only.stop();
    }
  });
});

describe("callers that misbehave", () => {
  it.each([
    ["no JSON", "{", 400],
    ["a name twice", `{"reference":"a.io/b:1","reference":"a.io/c:1"}`, 400],
    ["__proto__", `{"reference":"a.io/b:1","__proto__":{"x":1}}`, 400],
    ["an unknown field", `{"reference":"a.io/b:1","refrence":"x"}`, 400],
    ["a number that is none", `{"reference":NaN}`, 400],
    ["a wrong type", `{"reference":1}`, 400],
    ["half a surrogate pair", `{"reference":"\\ud800"}`, 400],
    ["a reference of over 64 KiB", `{"reference":"${"a".repeat(1024 * 1024)}"}`, 400],
  ])("AP06 with %s are told so, by a problem document", async (_what, body, status) => {
    const answer = await service.ask("/v1/prepare", { body });
    expect(answer).toMatchObject({
      status,
      json: { status, code: expect.any(String), detail: expect.any(String) },
    });
    expect(answer.headers["content-type"]).toBe("application/problem+json");
  });

  it.each([
    ["/v1/machines/%2e%2e%2f%2e%2e%2fetc", 400],
    ["/v1/machines/a%00b", 400],
    ["/v1//machines", 404],
    ["/v1/images/sha256:..%2f..%2fx", 400],
    ["/v1/machines\\x", 400],
    [`/v1/machines/${"a".repeat(5000)}`, 400],
    ["/v1/machines/vm-1/domain.xml?fragment=os&fragment=disks", 400],
  ])("AP07 at %s get %i", async (path, status) => {
    const socket = connect(service.socketPath);
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
    // As it is: a client library would put it right.
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    await once(socket, "close");
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  it.each([
    "127.0.0.1:2375/x:1",
    "169.254.169.254/latest:1",
    "[::1]:80/x:1",
    "2130706433:80/x:1",
    "localhost:1/x:1",
    "10.0.0.1/x:1",
    "oci:/etc:1",
  ])("AP14 are not led to %s", async (hidden) => {
    expect(await service.ask("/v1/prepare", { body: { reference: hidden } })).toMatchObject({
      status: 403,
      json: { code: "POLICY_DENIED" },
    });
  });

  it("AP11 a thousand at once are all answered, and health among them", async () => {
    const answers = await Promise.all(
      Array.from(
        { length: 1000 },
        (_, index) =>
          index % 10 === 0
            ? service.ask("/healthz")
            : service.ask("/v1/prepare", { body: { reference: `${proxy.host}/no/such:${index % 50}` } }),
      ),
    );
    const statuses = new Set(answers.map(({ status }) => status));
    for (const status of statuses) expect([200, 404, 503]).toContain(status);
    expect(answers.filter((_, index) => index % 10 === 0).every(({ status }) => status === 200)).toBe(true);
  });
});

describe("loopback TCP", () => {
  it("serves programs, and no web page; it does not pretend to know its callers", async () => {
    const port = 20_000 + Math.floor(Math.random() * 20_000);
    const open = await startService({ root: join(work, "tcp"), argv: ["--listen", `127.0.0.1:${port}`] });
    try {
      const ask = async (headers: Record<string, string>) =>
        await new Promise<number | undefined>((resolve, reject) => {
          const asked = request(
            { port, host: "127.0.0.1", path: "/v1/gc", method: "POST", headers },
            (answer) => {
              answer.resume();
              resolve(answer.statusCode);
            },
          );
          asked.on("error", reject);
          asked.end();
        });
      expect(await ask({})).toBe(200);
      expect(await ask({ host: "evil.example:80" })).toBe(403);
      expect(await ask({ origin: "https://evil.example" })).toBe(403);
      expect(await ask({ "sec-fetch-site": "cross-site" })).toBe(403);
    } finally {
      await open.stop();
    }
    const both = ["serve", "--listen", `127.0.0.1:${port}`, "--allow-uid", "1", "-o", "json"];
    const { exitCode, stderr } = await bootshim(both, { root });
    expect([exitCode, JSON.parse(stderr)]).toMatchObject([64, { error: { code: "REQUEST_INVALID" } }]);
  });
});
