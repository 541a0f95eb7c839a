/** Callers who may not call, and requests that are none: over the real server, as bytes. */
import { once } from "node:events";
import { lookup } from "node:dns/promises";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type CallerRules, makeHttpServer } from "../../src/api/http_server.ts";
import { addressClassOf } from "../../src/registry/network/address_class.ts";
import { callRaw, type RawCaller } from "../support/raw_http.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let service: ServiceProcess;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-protocol-"));
  service = await startService({ root: join(work, "root") });
});
afterAll(async () => {
  await service?.stop();
  await rm(work, { recursive: true, force: true });
});

/** What came until the other end closed; that it does not is a failure. */
async function closedBy({ closed, socket, received }: RawCaller): Promise<string> {
  const text = await Promise.race([closed, wait(5000)]);
  socket.destroy();
  if (text === undefined) throw new Error(`the connection stays open after ${JSON.stringify(received())}`);
  return text;
}

const statusesOf = (text: string) =>
  [...text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status));

describe("AP04 a caller who may not call", () => {
  const NOBODY = 4711;
  const seen: string[] = [];
  let server: Server | undefined;
  afterEach(() => {
    server?.close();
    seen.length = 0;
  });

  /** A server whose every answer, and every refusal in words, would be seen. */
  function listening(rules: CallerRules, place: string | { port: number; host: string }): Promise<unknown> {
    server = makeHttpServer({
      fetch: (request) => {
        seen.push(request.url);
        return new Response("secret");
      },
      refuse: () => ({ status: 400, headers: {}, body: "secret" }),
    }, {
      rules,
      limits: {
        headersTimeoutMs: 60_000,
        requestTimeoutMs: 60_000,
        idleTimeoutMs: 60_000,
        maxConnections: 10,
      },
    });
    const listens = once(server, "listening");
    server.listen(place);
    return listens;
  }

  it.each([
    ["never asks anything", ""],
    ["asks", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["speaks no HTTP", "hello\r\n\r\n"],
    ["wants a tunnel", "CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["expects something", "GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n"],
  ])("is cut off without a byte, and nothing of it is read, when it %s", async (_what, bytes) => {
    const path = join(work, "s");
    await listening({ allowedUserIds: new Set([NOBODY]) }, path);
    expect(await closedBy(await callRaw(path, bytes))).toBe("");
    expect(seen).toEqual([]);
  });

  it("is denied where the kernel knows no caller, even when everybody may call", async () => {
    await listening({ allowedUserIds: null }, { port: 0, host: "127.0.0.1" });
    const address = server?.address();
    const port = typeof address === "object" ? address?.port : undefined;
    await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow();
    expect(seen).toEqual([]);
  });
});

describe("AP06 a body that is no request", () => {
  const post = (body: object) => service.ask("/v1/prepare", { body });
  const reference = "a.example/b:1";

  it.each([
    ["a wrong type", { reference: 1 }, ["reference"]],
    ["a wrong type inside", { reference, machine: { id: "a", cpus: "2" } }, ["machine", "cpus"]],
    ["a wrong word in a list", { reference, append: ["a", 1] }, ["append", "1"]],
    ["a number that is too small", { reference, machine: { id: "a", memoryBytes: 0 } }, [
      "machine",
      "memoryBytes",
    ]],
    ["nothing that it needs", {}, ["reference"]],
  ])("with %s is told where", async (_what, body, path) => {
    const answer = await post(body);
    expect(answer).toMatchObject({ status: 400, json: { code: "REQUEST_INVALID" } });
    expect(answer.json).toMatchObject({
      details: { issues: expect.arrayContaining([expect.objectContaining({ path })]) },
    });
    expect(answer.json).toMatchObject({ detail: expect.stringContaining(path.join(".")) });
  });

  it.each([
    ["an unknown field", { reference, refrence: "x" }, [], "refrence"],
    ["an unknown field inside", { reference, machine: { id: "a", cpu: 1 } }, ["machine"], "cpu"],
  ])("with %s is told its name, and where", async (_what, body, path, name) => {
    expect(await post(body)).toMatchObject({
      status: 400,
      json: {
        code: "REQUEST_INVALID",
        details: { issues: [{ path, message: expect.stringContaining(`"${name}"`) }] },
      },
    });
  });

  it.each([
    ["is no UTF-8", [0xff]],
    ["ends in the middle of a character", [0xc3]],
    ["has an overlong character", [0xc0, 0xaf]],
    ["has half a surrogate pair", [0xed, 0xa0, 0x80]],
    ["begins with a byte order mark", undefined],
  ])("that %s is refused", async (_what, bytes) => {
    const [before, after] = ['{"reference":"a.example/b', ':1"}'].map((text) =>
      new TextEncoder().encode(text)
    );
    const body = bytes
      ? [...before ?? [], ...bytes, ...after ?? []]
      : [0xef, 0xbb, 0xbf, ...before ?? [], ...after ?? []];
    const caller = await callRaw(
      service.socketPath,
      `POST /v1/prepare HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`,
    );
    caller.socket.write(new Uint8Array(body));
    const text = await closedBy(caller);
    expect(statusesOf(text)).toEqual([400]);
    expect(text).toContain('"code":"REQUEST_INVALID"');
  });
});

describe("AP08 what is no request of ours", () => {
  const POST = "POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  const SMUGGLED = "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n";

  it.each([
    ["two lengths", `${POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}`, 400],
    [
      "a length and chunks",
      `${POST}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
      400,
    ],
    [
      "chunks that are not the last coding",
      `${POST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n${SMUGGLED}`,
      400,
    ],
    ["a length that is none", `${POST}Content-Length: +2\r\n\r\n{}`, 400],
    ["a chunk's size that is none", `${POST}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n`, 400],
    ["a blank before the colon", `GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n${SMUGGLED}`, 400],
    [
      "a header on two lines",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent Length: 1\r\n\r\n`,
      400,
    ],
    ["no Host", `GET /healthz HTTP/1.1\r\n\r\n${SMUGGLED}`, 400],
    ["an expectation", `GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\n\r\n${SMUGGLED}`, 417],
    [
      "an upgrade",
      "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
      400,
    ],
    [
      "an upgrade to HTTP/2",
      "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
      400,
    ],
    ["CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 405],
    ["a target that is a URL", `GET http://127.0.0.1:2375/info HTTP/1.1\r\nHost: x\r\n\r\n${SMUGGLED}`, 400],
    ["a target that is everything", `OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n${SMUGGLED}`, 400],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
    ["no HTTP", "hello\r\n\r\n", 400],
    ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
  ])("is refused once, and its connection closed: %s", async (_what, bytes, status) => {
    const text = await closedBy(await callRaw(service.socketPath, bytes));
    expect(statusesOf(text)).toEqual([status]);
    expect(text).toMatch(/^content-type: application\/problem\+json\r$/im);
    expect(text).toMatch(/^connection: close\r$/im);
    expect(text).toContain('"code":"REQUEST_INVALID"');
    expect((await service.ask("/healthz")).status).toBe(200);
  });

  it("a hundred requests at once on one connection are answered in order", async () => {
    const path = (index: number) => index % 2 === 0 ? "/v1/version" : `/v1/machines/none-${index}`;
    const requests = Array.from(
      { length: 100 },
      (_, index) =>
        `GET ${path(index)} HTTP/1.1\r\nHost: x\r\n${index === 99 ? "Connection: close\r\n" : ""}\r\n`,
    );
    const text = await closedBy(await callRaw(service.socketPath, requests.join("")));
    expect(statusesOf(text)).toEqual(Array.from({ length: 100 }, (_, index) => index % 2 === 0 ? 200 : 404));
    const named = [...text.matchAll(/"detail":"[^"]*\\"none-(\d+)\\"/g)].map(([, index]) => Number(index));
    expect(named).toEqual(Array.from({ length: 50 }, (_, index) => 2 * index + 1));
  });

  it("and end with the first that is none", async () => {
    const text = await closedBy(
      await callRaw(service.socketPath, `${SMUGGLED.repeat(50)}hello\r\n\r\n${SMUGGLED.repeat(49)}`),
    );
    expect(statusesOf(text).filter((status) => status === 200).length).toBeLessThanOrEqual(50);
    expect(statusesOf(text).filter((status) => status !== 200)).toEqual([400]);
    expect((await service.ask("/healthz")).status).toBe(200);
  });
});

describe("AP14 a name that leads to this host, or to one beside it", async () => {
  const names = [hostname(), "ip6-localhost", "localhost.localdomain", "localhost"].map((name) =>
    name.toLowerCase()
  );
  const classes = await Promise.all(
    names.map((name) => lookup(name).then(({ address }) => addressClassOf(address), () => "public")),
  );
  const hidden = names.filter((_, index) => classes[index] !== "public");

  it.each(hidden)("%s is refused, and not connected to", async (name) => {
    let connections = 0;
    const listener = createServer((socket) => {
      connections += 1;
      socket.destroy();
    });
    listener.listen(0, "::");
    await once(listener, "listening");
    try {
      const address = listener.address();
      const port = typeof address === "object" ? address?.port : undefined;
      const answer = await service.ask("/v1/prepare", { body: { reference: `${name}:${port}/x:1` } });
      expect(answer).toMatchObject({
        status: 403,
        json: {
          code: "POLICY_DENIED",
          details: { remedy: expect.stringContaining(`[registry.host."${name}:${port}"]`) },
        },
      });
      expect(connections).toBe(0);
    } finally {
      listener.close();
    }
  });
});
