import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../src/registry/limits.ts";
import { sendFollowing } from "../../src/registry/redirect.ts";
import { Transport } from "../../src/registry/transport.ts";
import { respond, serveRange, startFaultServer } from "../support/fault_server.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const redirect = (location: string | readonly string[], status = 307) =>
  respond(status, { headers: { Location: location } });

describe("redirects", () => {
  it.each([301, 302, 303, 307, 308])("RP25 a blob's %i to another origin is followed", async (status) => {
    const { bytes, descriptor } = randomBlob(1000);
    const signature = randomBytes(8).toString("hex");
    await using storage = await startFaultServer((request) => serveRange(request, bytes));
    await withRegistry(
      () => redirect(`http://${storage.host}/b?s=${signature}`, status),
      async ({ client }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(storage.requests.map(({ method, path }) => [method, path])).toEqual([[
          "GET",
          `/b?s=${signature}`,
        ]]);
        expect(storage.requests[0]?.headers.host).toBe(storage.host);
      },
    );
  });

  it("RP25 RP32 credentials stay with the origin: another port is another one, and coming back gives none back", async () => {
    const secret = randomBytes(16).toString("hex");
    const headers = {
      authorization: `Bearer ${secret}`,
      cookie: secret,
      "proxy-authorization": secret,
      range: "bytes=0-1",
    };
    await using storage = await startFaultServer((request) =>
      request.path === "/1" ? redirect("/2") : redirect(`http://${registry.host}/last`)
    );
    await using registry = await startFaultServer((request) =>
      request.path === "/first"
        ? redirect("/second")
        : request.path === "/second"
        ? redirect(`http://${storage.host}/1`)
        : respond(200)
    );
    const transport = new Transport(DEFAULT_LIMITS);
    try {
      const url = new URL(`http://${registry.host}/first`);
      const response = await sendFollowing(transport, { method: "GET", url, headers, action: "test" });
      response.discard();
    } finally {
      await transport.close();
    }
    const seen = [...registry.requests, ...storage.requests].map((
      { path, headers },
    ) => [path, headers.authorization, headers.cookie, headers["proxy-authorization"], headers.range]);
    expect(seen).toEqual([
      ["/first", `Bearer ${secret}`, secret, secret, "bytes=0-1"],
      ["/second", `Bearer ${secret}`, secret, secret, "bytes=0-1"],
      ["/last", undefined, undefined, undefined, "bytes=0-1"],
      ["/1", undefined, undefined, undefined, "bytes=0-1"],
      ["/2", undefined, undefined, undefined, "bytes=0-1"],
    ]);
  });

  it("RP26 five hops are followed", async () => {
    const { bytes, descriptor } = randomBlob(1000);
    await withRegistry(
      (request, count) => count < 5 ? redirect(`/hop${count}`) : serveRange(request, bytes),
      async ({ client }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      },
    );
  });

  it("RP26 a loop is REDIRECT_REFUSED after the fifth hop, and is not tried again", async () => {
    await withRegistry((request) => redirect(request.path), async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("REDIRECT_REFUSED");
      expect(server.requests).toHaveLength(6);
    });
  });

  it.each([
    ["file:///etc/shadow", "REDIRECT_REFUSED"],
    ["data:text/plain,x", "REDIRECT_REFUSED"],
    ["unix:///run/libvirt/libvirt-sock", "REDIRECT_REFUSED"],
    ["ftp://127.0.0.1/x", "REDIRECT_REFUSED"],
    ["javascript:1", "REDIRECT_REFUSED"],
    ["http://", "REGISTRY_PROTOCOL"],
    ["http://[::1", "REGISTRY_PROTOCOL"],
    ["http://127.0.0.1:99999/", "REGISTRY_PROTOCOL"],
    ["", "REGISTRY_PROTOCOL"],
    [["/a", "/b"], "REGISTRY_PROTOCOL"],
    [`/${"a".repeat(17 * 1024)}`, "REGISTRY_PROTOCOL"],
    ["/a\r b", "REGISTRY_PROTOCOL"],
  ])("RP30 a Location of %j is %s", async (location, code) => {
    await withRegistry(() => redirect(location), async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe(code);
      expect(server.requests).toHaveLength(1);
    });
  });

  it("RP30 a missing Location is REGISTRY_PROTOCOL", async () => {
    await withRegistry(() => respond(307), async ({ client }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_PROTOCOL");
    });
  });

  it("RP30 encoded line breaks stay encoded, and user and password are dropped", async () => {
    const { bytes, descriptor } = randomBlob(1000);
    await using storage = await startFaultServer((request) => serveRange(request, bytes));
    const location = `http://user:password@${storage.host}/b%0d%0aX-Injected:%201#fragment`;
    await withRegistry(() => redirect(location), async ({ client }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(storage.requests[0]?.path).toBe("/b%0d%0aX-Injected:%201");
      expect(storage.requests[0]?.headers.authorization).toBeUndefined();
      expect(storage.requests[0]?.headers["x-injected"]).toBeUndefined();
    });
  });

  it("keeps the query string of a signed URL out of the error", async () => {
    const signature = randomBytes(8).toString("hex");
    await withRegistry(
      (request) =>
        request.path.startsWith("/v2/") ? redirect(`/b?s=${signature}`) : respond(403, { body: "expired" }),
      async ({ client }) => {
        const failure = await failureOf(client.openBlob(randomBlob(10).descriptor));
        expect(failure.code).toBe("REGISTRY_DENIED");
        expect(JSON.stringify([failure.message, failure.details])).not.toContain(signature);
      },
    );
  });
});
