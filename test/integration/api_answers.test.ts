/** Whatever is asked, and however wrongly, is answered as the OpenAPI document says, counted, and told in the log. */
import { createServer } from "node:net";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { problemDocument } from "../../src/api/problem.ts";
import { type ApiKit, startApiKit, until } from "../support/api_kit.ts";
import { callRaw } from "../support/raw_http.ts";
import type { ServiceProcess } from "../support/service.ts";

let kit: ApiKit;
let service: ServiceProcess;
let port: number;
let described: Readonly<Record<string, Readonly<Record<string, { readonly responses: object }>>>>;

beforeAll(async () => {
  kit = await startApiKit();
  port = await freePort();
  const argv = ["--listen", `127.0.0.1:${port}`, "--log-level", "info", "--log-format", "json"];
  service = await kit.start("answers", "", argv);
  const { json } = await service.ask("/openapi.json");
  described = (json as { paths: typeof described }).paths;
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  await kit.stop();
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no address");
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}

/** All of the answer to bytes that are sent as they are; the other end closes. */
async function overTcp(bytes: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
    socket.on("error", reject);
    socket.on("close", () => resolve(text));
    socket.write(bytes);
  });
}

function logged(): Record<string, unknown>[] {
  return service.said().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

/** A problem document with its id, of a status that every route describes; the log has the same id. */
async function expectRefusal(text: string, status: number, code: string): Promise<void> {
  const [head = "", body = ""] = text.split("\r\n\r\n");
  expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(head).toMatch(/^content-type: application\/problem\+json$/im);
  expect(head).toMatch(/^connection: close$/im);
  expect(problemDocument.parse(JSON.parse(body))).toMatchObject({ status, code });
  expect(Object.keys(described["/healthz"]?.["get"]?.responses ?? {})).toContain(String(status));
  const id = /^x-request-id: (.*)$/im.exec(head)?.[1] ?? "none";
  await until(() => logged().some((record) => JSON.stringify(record).includes(id)));
}

describe("AP08 what is no request of the API's is refused by a problem document, and its connection closed", () => {
  const get = "GET /healthz HTTP/1.1\r\nHost: x\r\n";
  it.each([
    ["without a Host", "GET /healthz HTTP/1.1\r\n\r\n", 400],
    ["with a Host that is none", "GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", 400],
    ["with an expectation", `${get}Expect: x\r\n\r\n`, 417],
    ["with an absolute target", "GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400],
    ["with * as target", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400],
    ["with a backslash", "GET /v1\\x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400],
    ["for another protocol", `${get}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`, 400],
    ["for another host", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", 405],
    ["in HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
    ["of two lengths", `${get}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}`, 400],
    ["of length and chunks", `${get}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    ["with large headers", `${get}X: ${"a".repeat(40_000)}\r\n\r\n`, 431],
  ])("%s", async (_what, bytes, status) => {
    const { closed } = await callRaw(service.socketPath, bytes);
    await expectRefusal(await closed, status, "REQUEST_INVALID");
  });

  it.each([
    "Host: evil.example",
    "Host: 127.0.0.1\r\nOrigin: https://evil.example",
    "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site",
  ])("over TCP with %j", async (headers) => {
    await expectRefusal(await overTcp(`GET /healthz HTTP/1.1\r\n${headers}\r\n\r\n`), 403, "POLICY_DENIED");
  });

  it("a hundred requests in one go are answered one after the other", async () => {
    const get = "GET /healthz HTTP/1.1\r\nHost: x\r\n";
    const { closed } = await callRaw(
      service.socketPath,
      `${`${get}\r\n`.repeat(99)}${get}Connection: close\r\n\r\n`,
    );
    expect((await closed).match(/HTTP\/1\.1 200 /g)).toHaveLength(100);
  });
});

describe("methods", () => {
  it.each([
    ["PATCH", "/v1/machines/vm-1", "GET, PUT, DELETE"],
    ["GET", "/v1/prepare", "POST"],
    ["HEAD", "/v1/events", "GET"],
    ["HEAD", "/healthz", "GET"],
    ["OPTIONS", "/openapi.json", "GET"],
  ])("that a route has not, as %s %s, are 405 with those that it has", async (method, path, allow) => {
    const { status, headers, json } = await service.ask(path, { method });
    expect([status, headers["allow"]]).toEqual([405, allow]);
    if (method !== "HEAD") expect(json).toMatchObject({ code: "REQUEST_INVALID" });
  });
});

describe("counting", () => {
  const metrics = async () => (await service.ask("/metrics")).text;
  const value = async (line: RegExp) => Number(line.exec(await metrics())?.[1] ?? 0);

  it("has routes that are unknown, their id, and their line in the log", async () => {
    const before = await value(/^bootshim_requests_total\{status="404"\} (\d+)$/m);
    const { status, headers } = await service.ask("/no/such");
    expect([status, await value(/^bootshim_requests_total\{status="404"\} (\d+)$/m)]).toEqual([
      404,
      before + 1,
    ]);
    const id = String(headers["x-request-id"]);
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    await until(() => logged().some((record) => JSON.stringify(record).includes(id)));
  });

  it("has operations by how they ended, also those that nobody waited for, and what the cache had", async () => {
    const missing = `${kit.proxy.host}/os/none:1`;
    const { headers } = await service.ask("/v1/prepare", {
      body: { reference: missing },
      headers: { prefer: "respond-async" },
    });
    await service.ask(`${headers["location"]}/events`);
    for (let times = 0; times < 3; times++) {
      await service.ask("/v1/prepare", { body: { reference: kit.reference } });
    }
    const text = await metrics();
    for (
      const line of [
        'bootshim_operations_total{kind="prepare",state="failed",code="REGISTRY_NOT_FOUND"} 1',
        'bootshim_operations_total{kind="prepare",state="succeeded",code=""} 3',
        'bootshim_operation_seconds_count{kind="prepare",state="failed"} 1',
        'bootshim_operation_seconds_count{kind="prepare",state="succeeded"} 3',
        'bootshim_image_lookups_total{outcome="miss"} 1',
        'bootshim_image_lookups_total{outcome="hit"} 2',
        "# TYPE bootshim_foreign_calls_total counter",
        "# TYPE bootshim_slow_foreign_calls_total counter",
      ]
    ) expect(text.split("\n")).toContain(line);
  });

  it("has the bytes that came, also those of a pull that was broken off", async () => {
    const { otherProxy } = kit;
    const own = await kit.start("bytes");
    try {
      const received = async () =>
        Number(/^bootshim_transferred_bytes_total (\d+)$/m.exec((await own.ask("/metrics")).text)?.[1] ?? 0);
      otherProxy.pace(2_000_000);
      const { headers } = await own.ask("/v1/prepare", {
        body: { reference: `${otherProxy.host}/os/demo:1` },
        headers: { prefer: "respond-async" },
      });
      await until(async () => await received() > 500_000);
      await own.ask(String(headers["location"]), { method: "DELETE" });
      await own.ask(`${headers["location"]}/events`);
      const broken = await received();
      expect(broken).toBeLessThanOrEqual(otherProxy.sentBytes);
      otherProxy.pace(undefined);
      const { json } = await own.ask("/v1/prepare", { body: { reference: `${otherProxy.host}/os/demo:1` } });
      const { transferredBytes } = json as { transferredBytes: number };
      expect(await received()).toBe(broken + transferredBytes);
    } finally {
      otherProxy.pace(undefined);
      expect(await own.stop()).toBe(0);
    }
    // It is measured once a minute.
    const next = await kit.start("bytes");
    const bytes = /^bootshim_cache_bytes (\d+)$/m.exec((await next.ask("/metrics")).text)?.[1];
    expect(await next.stop()).toBe(0);
    expect(Number(bytes)).toBeGreaterThan(1_000_000);
  });

  it("has the users that may not call", async () => {
    const only = await kit.start("only", "", [
      "--allow-uid",
      "4711",
      "--mode",
      "0666",
      "--log-level",
      "info",
    ]);
    try {
      // Root and the service's own user may always: so it is asked as somebody else.
      const { spawnSync } = await import("node:child_process");
      spawnSync("chmod", ["0755", only.socketPath.slice(0, only.socketPath.lastIndexOf("/"))]);
      const { status } = spawnSync("setpriv", [
        ...["--reuid=4712", "--clear-groups", "curl", "--silent", "--unix-socket", only.socketPath],
        "http://bootshim/healthz",
      ]);
      expect(status).not.toBe(0);
      const { text } = await only.ask("/metrics");
      expect(text).toMatch(/^bootshim_requests_total\{status="403"\} 1$/m);
      expect(only.said()).toMatch(/ 403 /);
    } finally {
      expect(await only.stop()).toBe(0);
    }
  });
});
