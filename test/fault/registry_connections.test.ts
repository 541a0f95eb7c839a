import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer as createHttpsServer } from "node:https";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { respond } from "../support/fault_server.ts";
import { failureOf } from "../support/failures.ts";
import { QUICK, withRegistry } from "../support/registry_client_kit.ts";

/** Gives the free loopback port the server now listens on. */
async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("A TCP server has no port");
  return address.port;
}

const MANIFEST_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n";

describe("connections to a registry", () => {
  it("RP18 a connection that is never accepted is REGISTRY_TIMEOUT within the connect limit", async () => {
    // Node always accepts; a listener that never does, with its queue full, leaves further connections hanging.
    const listener = spawn("perl", [
      "-MSocket",
      "-e",
      'socket(S,PF_INET,SOCK_STREAM,0); bind(S,sockaddr_in(0,INADDR_LOOPBACK)); listen(S,0); $|=1; print((sockaddr_in(getsockname(S)))[0],"\\n"); sleep 30',
    ], { stdio: ["ignore", "pipe", "inherit"] });
    const fillers: Socket[] = [];
    try {
      const [port] = await once(createInterface({ input: listener.stdout }), "line");
      for (let i = 0; i < 2; i += 1) {
        const filler = connect(Number(port), "127.0.0.1");
        filler.on("error", () => {});
        fillers.push(filler);
      }
      if (fillers[0] !== undefined) await once(fillers[0], "connect");
      const client = new RegistryClient({
        host: `127.0.0.1:${port}`,
        repository: "os/demo",
        limits: { ...QUICK, attemptsWithoutProgress: 1 },
      });
      const startedAt = performance.now();
      const failure = await failureOf(client.resolve("latest"));
      expect(failure.code).toBe("REGISTRY_TIMEOUT");
      expect(failure.message).toContain("UND_ERR_CONNECT_TIMEOUT");
      expect(performance.now() - startedAt).toBeLessThan(3000);
      await client.close();
    } finally {
      for (const filler of fillers) filler.destroy();
      const ended = once(listener, "close");
      listener.kill();
      await ended;
    }
  }, 15_000);

  it("RP18 headers that never come are REGISTRY_TIMEOUT within the limit", async () => {
    await withRegistry(() => [{ hang: true }], async ({ client, server }) => {
      const failure = await failureOf(client.resolve("latest"));
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_TIMEOUT", true]);
      expect(server.requests).toHaveLength(3);
    }, { headersTimeoutMs: 100 });
  }, 15_000);

  it("RP18 headers that stop in the middle are REGISTRY_TIMEOUT", async () => {
    await withRegistry(
      () => [{ send: "HTTP/1.1 200 OK\r\nContent-Le" }, { hang: true }],
      async ({ client }) => {
        expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_TIMEOUT");
      },
      { attemptsWithoutProgress: 1 },
    );
  }, 15_000);

  it("RP48 a port where nobody listens is REGISTRY_UNAVAILABLE within a second", async () => {
    const probe = createServer();
    const port = await listen(probe);
    probe.close();
    await once(probe, "close");
    for (const name of ["127.0.0.1", "localhost"]) {
      const client = new RegistryClient({ host: `${name}:${port}`, repository: "os/demo" });
      const startedAt = performance.now();
      const failure = await failureOf(client.resolve("latest"));
      expect(performance.now() - startedAt).toBeLessThan(1000);
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_UNAVAILABLE", true]);
      expect(failure.message).toBe(
        `Cannot fetch manifest "latest" of "${name}:${port}/os/demo": ` +
          "the connection failed or broke (ECONNREFUSED)",
      );
      await client.close();
    }
  });

  it("RP48 a connection that is reset at once is REGISTRY_UNAVAILABLE", async () => {
    const server = createServer((socket) => socket.resetAndDestroy());
    const port = await listen(server);
    const client = new RegistryClient({
      host: `127.0.0.1:${port}`,
      repository: "os/demo",
      limits: QUICK,
    });
    expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_UNAVAILABLE");
    await client.close();
    server.close();
    await once(server, "close");
  });

  it.each([
    ["a bad status line", "HTPP/9 hello\r\n\r\n"],
    ["a header over 16 KiB", `HTTP/1.1 200 OK\r\nX-A: ${"a".repeat(17 * 1024)}\r\n\r\n`],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"],
    ["a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"],
    [
      "a length and chunks",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ["2,000 headers", `HTTP/1.1 200 OK\r\n${"X-A: 123456789\r\n".repeat(2000)}\r\n`],
    ["a folded header", `${MANIFEST_HEAD}X-A: one\r\n two\r\nContent-Length: 2\r\n\r\n{}`],
    ["a header without a name", `${MANIFEST_HEAD}: one\r\nContent-Length: 2\r\n\r\n{}`],
    ["a NUL in a header", `${MANIFEST_HEAD}X-A: o\0e\r\nContent-Length: 2\r\n\r\n{}`],
    ["a length that is no number", `${MANIFEST_HEAD}Content-Length: 0x2\r\n\r\n{}`],
    ["a bad chunk size", `${MANIFEST_HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`],
    ["an endless chunk size", `${MANIFEST_HEAD}Transfer-Encoding: chunked\r\n\r\n${"f".repeat(20)}\r\n{}`],
  ])("RP39 %s is REGISTRY_PROTOCOL and is not tried again", async (_name, send) => {
    await withRegistry(() => [{ send }, { close: true }], async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_PROTOCOL");
      expect(server.requests).toHaveLength(1);
    });
  });

  it(
    "RP39 10,000 interim answers end in REGISTRY_PROTOCOL or in the limit on headers, and the process lives",
    async () => {
      await withRegistry(
        () => [{ sendForever: new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n".repeat(100)) }],
        async ({ client }) => {
          const failure = await failureOf(client.resolve("latest"));
          expect(failure.code).toMatch(/^REGISTRY_(?:PROTOCOL|TIMEOUT|UNAVAILABLE)$/);
        },
        { attemptsWithoutProgress: 1 },
      );
    },
    15_000,
  );

  it("RP47 a self-signed certificate and a TLS port that speaks plain HTTP are REGISTRY_TLS", async () => {
    const directory = await mkdtemp(join(tmpdir(), "bootshim-tls-"));
    const [key, certificate] = [join(directory, "key.pem"), join(directory, "certificate.pem")];
    await promisify(execFile)("openssl", [
      ..."req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        .split(" "),
      ...["-keyout", key, "-out", certificate],
    ]);
    const secure = createHttpsServer({ key: await readFile(key), cert: await readFile(certificate) });
    await rm(directory, { recursive: true });
    const plain = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    try {
      for (const server of [secure, plain]) {
        const location = `https://127.0.0.1:${await listen(server)}/x`;
        await withRegistry(
          () => respond(307, { headers: { Location: location } }),
          async ({ client, server }) => {
            expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_TLS");
            expect(server.requests).toHaveLength(1);
          },
        );
      }
    } finally {
      secure.close();
      plain.close();
    }
  });

  it("RP37 a connection that the server closed while idle is not noticed", async () => {
    await withRegistry(() => [...respond(404), { close: true }], async ({ client, server }) => {
      for (let i = 0; i < 5; i += 1) {
        expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_NOT_FOUND");
      }
      expect(server.requests).toHaveLength(5);
    });
  });
});
