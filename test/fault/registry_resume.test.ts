import { describe, expect, it } from "vitest";
import { cutAfter, respond, respondChunked, serveRange } from "../support/fault_server.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const SIZE_BYTES = 300_000;

describe("RegistryClient.openBlob over broken connections", () => {
  it("RP11 a body that ends early is resumed with a closed range", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) =>
        count === 0 ? cutAfter(serveRange(request, bytes), 100_000, "close") : serveRange(request, bytes),
      async ({ client, server }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(server.requests.map(({ headers }) => headers.range)).toEqual([
          undefined,
          "bytes=100000-299999",
        ]);
      },
    );
  });

  it("RP11 one that ends early at the same place every time is CONTENT_SIZE_MISMATCH after 3 fruitless requests", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) => cutAfter(serveRange(request, bytes), count === 0 ? 100_000 : 0, "close"),
      async ({ client, server }) => {
        const failure = await failureOf(collect(client.openBlob(descriptor)));
        expect(failure.code).toBe("CONTENT_SIZE_MISMATCH");
        expect(failure.message).toBe(
          `Cannot fetch blob "${descriptor.digest}" of "${server.host}/os/demo": ` +
            "received 100000 bytes, descriptor says 300000 bytes",
        );
        expect(server.requests).toHaveLength(3);
      },
    );
  });

  it("RP12 a chunked body that ends early in good order is resumed", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) =>
        count === 0 ? respondChunked(200, { body: bytes.subarray(0, 1000) }) : serveRange(request, bytes),
      async ({ client }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      },
    );
  });

  it("RP12 a blob that is shorter than its descriptor is CONTENT_SIZE_MISMATCH when the rest is asked for", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const shorter = bytes.subarray(0, 1000);
    await withRegistry(
      (request, count) => count === 0 ? respondChunked(200, { body: shorter }) : serveRange(request, shorter),
      async ({ client, server }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("CONTENT_SIZE_MISMATCH");
        expect(server.requests).toHaveLength(2);
      },
    );
  });

  it.each([0, 0.01, 0.5, 0.99, 1 - 1 / SIZE_BYTES])(
    "RP15 a reset after the share %f is resumed",
    async (share) => {
      const { bytes, descriptor } = randomBlob(SIZE_BYTES);
      const cutAt = Math.round(SIZE_BYTES * share);
      await withRegistry(
        (request, count) =>
          count === 0 ? cutAfter(serveRange(request, bytes), cutAt, "reset") : serveRange(request, bytes),
        async ({ client, server }) => {
          expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
          expect(server.requests).toHaveLength(2);
        },
      );
    },
  );

  it("RP15 many resets are survived as long as each connection brings something", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 30_000, "reset"),
      async ({ client, server }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(server.requests.length).toBeGreaterThanOrEqual(10);
      },
    );
  });

  it("RP15 a server that always resets is REGISTRY_UNAVAILABLE after 3 requests", async () => {
    const { descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(() => [{ reset: true }], async ({ client, server }) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_UNAVAILABLE");
      expect(server.requests).toHaveLength(3);
    });
  });

  it("RP49 a server that gives one byte per connection is left after attemptsPerBlob requests", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 1, "close"),
      async ({ client, server }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("CONTENT_SIZE_MISMATCH");
        expect(server.requests).toHaveLength(7);
      },
      { attemptsPerBlob: 7 },
    );
  });

  it("RP16 a body that goes silent is resumed after the stall limit", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) =>
        count === 0 ? cutAfter(serveRange(request, bytes), 5000, "hang") : serveRange(request, bytes),
      async ({ client, server }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(server.requests[1]?.headers.range).toBe("bytes=5000-299999");
      },
    );
  });

  it("RP16 one that goes silent every time is REGISTRY_TIMEOUT", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 0, "hang"),
      async ({ client, server }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("REGISTRY_TIMEOUT");
        expect(server.requests).toHaveLength(3);
      },
      { stallTimeoutMs: 100 },
    );
  }, 15_000);

  it("RP19 a resume that is answered 200 has its prefix dropped, once", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const whole = respond(200, { body: bytes });
    await withRegistry(
      (_request, count) => count === 0 ? cutAfter(whole, 123_456, "reset") : whole,
      async ({ client, server }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(server.requests).toHaveLength(2);
      },
    );
    await withRegistry(
      (_request, count) => cutAfter(whole, 50_000 * (count + 1), "reset"),
      async ({ client, server }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("REGISTRY_PROTOCOL");
        expect(server.requests).toHaveLength(3);
      },
    );
  });

  it.each([99_999, 100_001, 0])(
    "RP20 a resume that starts at %i instead of 100000 is REGISTRY_PROTOCOL",
    async (start) => {
      const { bytes, descriptor } = randomBlob(SIZE_BYTES);
      await withRegistry(
        (request, count) =>
          count === 0 ? cutAfter(serveRange(request, bytes), 100_000, "close") : respond(206, {
            headers: { "Content-Range": `bytes ${start}-299999/300000` },
            body: bytes.subarray(start),
          }),
        async ({ client, server }) => {
          expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("REGISTRY_PROTOCOL");
          expect(server.requests).toHaveLength(2);
        },
      );
    },
  );

  it.each<[string, Record<string, string | string[]>]>([
    ["missing", {}],
    ["empty", { "Content-Range": "" }],
    ["twice", { "Content-Range": ["bytes 100000-299999/300000", "bytes 100000-299999/300000"] }],
    ["letters", { "Content-Range": "bytes x-y/z" }],
    ["another unit", { "Content-Range": "items 100000-299999/300000" }],
    ["no unit", { "Content-Range": "100000-299999/300000" }],
    ["a smaller total", { "Content-Range": "bytes 100000-299999/299999" }],
    ["a larger total", { "Content-Range": "bytes 100000-299999/300001" }],
    ["no total", { "Content-Range": "bytes 100000-299999" }],
    ["an unsatisfied range", { "Content-Range": "bytes */300000" }],
    ["an end before the start", { "Content-Range": "bytes 100000-99999/300000" }],
    ["an end outside", { "Content-Range": "bytes 100000-300000/300000" }],
    ["an overflow", { "Content-Range": "bytes 100000-18446744073709551615/18446744073709551616" }],
    ["a negative start", { "Content-Range": "bytes -100000-299999/300000" }],
    ["a fraction", { "Content-Range": "bytes 100000.0-299999/300000" }],
    ["a list", { "Content-Range": "bytes 100000-199999/300000, 200000-299999/300000" }],
    ["another length", { "Content-Range": "bytes 100000-199999/300000" }],
  ])("RP21 a 206 whose Content-Range has %s is REGISTRY_PROTOCOL", async (_name, headers) => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) =>
        count === 0
          ? cutAfter(serveRange(request, bytes), 100_000, "close")
          : respond(206, { headers, body: bytes.subarray(100_000) }),
      async ({ client, server }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("REGISTRY_PROTOCOL");
        expect(server.requests).toHaveLength(2);
      },
    );
  });

  it("RP21 an unknown total and a range that stops earlier than asked are accepted", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) => {
        if (count === 0) return cutAfter(serveRange(request, bytes), 100_000, "close");
        const first = 100_000 * count;
        const headers = { "Content-Range": `bytes ${first}-${first + 99_999}/*` };
        return respond(206, { headers, body: bytes.subarray(first, first + 100_000) });
      },
      async ({ client }) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      },
    );
  });

  it("RP22 a 206 that nobody asked for is REGISTRY_PROTOCOL", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const headers = { "Content-Range": "bytes 0-299999/300000" };
    await withRegistry(() => respond(206, { headers, body: bytes }), async ({ client }) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_PROTOCOL");
    });
  });

  it("RP22 multipart/byteranges is REGISTRY_PROTOCOL", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const headers = {
      "Content-Type": "multipart/byteranges; boundary=x",
      "Content-Range": "bytes 100000-299999/300000",
    };
    await withRegistry(
      (request, count) =>
        count === 0
          ? cutAfter(serveRange(request, bytes), 100_000, "close")
          : respond(206, { headers, body: bytes.subarray(100_000) }),
      async ({ client }) => {
        expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("REGISTRY_PROTOCOL");
      },
    );
  });

  it("RP31 a resume goes back to the registry for a new redirect: the old one is 403 by now", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const seen: string[] = [];
    const expired = new Set<string>();
    await withRegistry((request, count) => {
      seen.push(request.path.replace(/^\/v2.*/, "registry"));
      if (request.path.startsWith("/v2/")) {
        return respond(307, { headers: { Location: `/storage?signature=${count}` } });
      }
      if (expired.has(request.path)) return respond(403, { body: "<Code>AccessDenied</Code>" });
      expired.add(request.path);
      const answer = serveRange(request, bytes);
      return count === 1 ? cutAfter(answer, 1000, "close") : answer;
    }, async ({ client, server }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(seen).toEqual(["registry", "/storage?signature=0", "registry", "/storage?signature=2"]);
      expect(server.requests.at(-1)?.headers.range).toBe("bytes=1000-299999");
    });
  });

  it.each([
    [403, "REGISTRY_DENIED"],
    [401, "REGISTRY_UNAUTHORIZED"],
    // Google's storage of a URL that expired.
    [400, "REGISTRY_PROTOCOL"],
  ])(
    "RP31 a rest that the storage refuses by %i is asked for by one more redirect, and by no third",
    async (status, code) => {
      const { bytes, descriptor } = randomBlob(SIZE_BYTES);
      for (const refusals of [1, 2]) {
        const asked: unknown[] = [];
        let refused = 0;
        await withRegistry((request, count) => {
          if (request.path.startsWith("/v2/")) {
            return respond(307, { headers: { Location: `/storage?signature=${count}` } });
          }
          asked.push(request.headers.range);
          return refused++ < refusals ? respond(status) : serveRange(request, bytes);
        }, async ({ client, server }) => {
          const rest = client.openBlob(descriptor, { startByte: 1000 }).then(collect);
          if (refusals === 1) expect(await rest).toEqual(bytes.subarray(1000));
          else {
            const failure = await failureOf(rest);
            expect([failure.code, failure.message]).toEqual([
              code,
              expect.stringContaining(
                `"${server.host}", where the registry redirected to, answered ${status}`,
              ),
            ]);
            expect(failure.details).toMatchObject({ redirectedTo: server.host });
            expect(JSON.stringify([failure.message, failure.details])).not.toContain("signature");
          }
          expect(asked).toEqual(["bytes=1000-299999", "bytes=1000-299999"]);
        });
      }
    },
  );

  it("RP31 storage that refuses before it gave anything, and a registry that does, are not asked again", async () => {
    const { descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      ({ path }) =>
        path.startsWith("/v2/") ? respond(307, { headers: { Location: "/storage" } }) : respond(403),
      async ({ client, server }) => {
        expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_DENIED");
        expect(server.requests).toHaveLength(2);
      },
    );
    await withRegistry(() => respond(403), async ({ client, server }) => {
      expect((await failureOf(client.openBlob(descriptor, { startByte: 1000 }))).code).toBe(
        "REGISTRY_DENIED",
      );
      expect(server.requests).toHaveLength(1);
    });
  });
});
