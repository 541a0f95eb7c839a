import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { mainLoop } from "../../src/host/main_loop.ts";
import {
  type Answer,
  chunk,
  cutAfter,
  head,
  respond,
  respondChunked,
  serveRange,
} from "../support/fault_server.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const SIZE_BYTES = 300_000;

describe("RegistryClient.openBlob", () => {
  it("gives the bytes of one plain GET that asks for no coding and no range", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry((request) => serveRange(request, bytes), async ({ client, server }) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(server.requests).toHaveLength(1);
      expect(server.requests[0]?.path).toBe(`/v2/os/demo/blobs/${descriptor.digest}`);
      expect(server.requests[0]?.headers["accept-encoding"]).toBe("identity");
      expect(server.requests[0]?.headers.range).toBeUndefined();
    });
  });

  it("reads on only when the main loop has served others", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry((request) => serveRange(request, bytes), async ({ client }) => {
      const reader = (await client.openBlob(descriptor)).getReader();
      const asked = Promise.withResolvers<void>();
      const served = Promise.withResolvers<void>();
      const share = vi.spyOn(mainLoop, "share").mockImplementation(async () => {
        asked.resolve();
        await served.promise;
      });
      try {
        let receivedBytes = 0;
        const first = reader.read().then(({ value }) => receivedBytes += value?.length ?? 0);
        await asked.promise;
        await delay(20);
        expect(receivedBytes).toBe(0);
        served.resolve();
        await first;
        for (let step = await reader.read(); !step.done; step = await reader.read()) {
          receivedBytes += step.value.length;
        }
        expect(receivedBytes).toBe(SIZE_BYTES);
      } finally {
        share.mockRestore();
      }
    });
  });

  it("gives an empty blob, and uses its connections again", async () => {
    const { bytes, descriptor } = randomBlob(0);
    await withRegistry((request) => serveRange(request, bytes), async ({ client, server }) => {
      for (let i = 0; i < 6; i += 1) expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      // The next request may leave in the very moment in which the first connection becomes free.
      expect(server.connections).toBeLessThanOrEqual(2);
    });
  });

  it.each([-1, 1])("RP10 a Content-Length off by %i is CONTENT_SIZE_MISMATCH before the body", async (by) => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const headers = { "Content-Length": String(bytes.length + by) };
    await withRegistry(() => [{ send: head(200, headers) }, { hang: true }], async ({ client, server }) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("CONTENT_SIZE_MISMATCH");
      expect(server.requests).toHaveLength(1);
    });
  });

  it("RP13 an endless body ends with CONTENT_SIZE_MISMATCH, at most one byte over, and its connection is closed", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const answer: Answer = [
      { send: head(200, { "Transfer-Encoding": "chunked" }) },
      { sendForever: chunk(bytes) },
    ];
    await withRegistry(() => answer, async ({ client, server }) => {
      const reader = (await client.openBlob(descriptor)).getReader();
      let received = 0;
      const reading = async () => {
        for (;;) received += (await reader.read()).value?.length ?? 0;
      };
      expect((await failureOf(reading())).code).toBe("CONTENT_SIZE_MISMATCH");
      expect(received).toBeLessThanOrEqual(descriptor.sizeBytes + 1);
      expect(server.requests).toHaveLength(1);
      expect(server.sentBytes).toBeLessThan(16 * 1024 * 1024);
    });
  });

  it("RP13 one byte too many is CONTENT_SIZE_MISMATCH", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    const longer = new Uint8Array([...bytes, 7]);
    await withRegistry(() => respondChunked(200, { body: longer }), async ({ client }) => {
      expect((await failureOf(collect(client.openBlob(descriptor)))).code).toBe("CONTENT_SIZE_MISMATCH");
    });
  });

  it.each(["gzip", "br", "zstd", "gzip, gzip, gzip, gzip, gzip, gzip", "x-unknown"])(
    "RP40 a blob with Content-Encoding %s is REGISTRY_PROTOCOL before the body",
    async (coding) => {
      const { bytes, descriptor } = randomBlob(1000);
      await withRegistry(
        () => respond(200, { headers: { "Content-Encoding": coding }, body: bytes }),
        async ({ client }) => {
          expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_PROTOCOL");
        },
      );
    },
  );

  it("takes no more from the network than its reader asks for", async () => {
    const { bytes, descriptor } = randomBlob(32 * 1024 * 1024);
    const pieces: Answer = Array.from(
      { length: 512 },
      (_none, i) => ({ send: bytes.subarray(i * 65_536, (i + 1) * 65_536) }),
    );
    await withRegistry(
      () => [{ send: head(200, { "Content-Length": String(bytes.length) }) }, ...pieces],
      async ({ client, server }) => {
        const reader = (await client.openBlob(descriptor)).getReader();
        await reader.read();
        await new Promise((resolve) => setTimeout(resolve, 200));
        // Two kernels' socket buffers and 64 KiB of ours, not the whole blob.
        expect(server.sentBytes).toBeLessThan(16 * 1024 * 1024);
        await reader.cancel();
      },
    );
  });

  it("waits for a reader that is slower than the stall limit", async () => {
    const { bytes, descriptor } = randomBlob(32 * 1024 * 1024);
    await withRegistry((request) => serveRange(request, bytes), async ({ client, server }) => {
      const reader = (await client.openBlob(descriptor)).getReader();
      let received = (await reader.read()).value?.length ?? 0;
      await new Promise((resolve) => setTimeout(resolve, 2000));
      for (let step = await reader.read(); !step.done; step = await reader.read()) {
        received += step.value.length;
      }
      expect(received).toBe(bytes.length);
      // No part of it was asked for twice.
      const ranges = server.requests.map(({ headers }) => headers.range);
      expect(new Set(ranges).size).toBe(ranges.length);
    });
  });

  it("survives being cancelled unread, in the middle, and while silent", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 50_000, "hang"),
      async ({ client, server }) => {
        const unread = await client.openBlob(descriptor);
        await unread.cancel();
        const reader = (await client.openBlob(descriptor)).getReader();
        await reader.read();
        await reader.cancel();
        const silent = (await client.openBlob(descriptor)).getReader();
        let received = 0;
        while (received < 50_000) received += (await silent.read()).value?.length ?? 0;
        const startedAt = performance.now();
        const pending = silent.read();
        await silent.cancel();
        expect((await pending).done).toBe(true);
        expect(performance.now() - startedAt).toBeLessThan(300);
        expect(server.requests).toHaveLength(3);
      },
    );
  });

  it("is CANCELLED by its signal while bytes flow, and while it waits for another attempt", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 50_000, "hang"),
      async ({ client, server }) => {
        const stop = new AbortController();
        const reading = failureOf(collect(client.openBlob(descriptor, { signal: stop.signal })));
        setTimeout(() => stop.abort(), 100);
        expect((await reading).code).toBe("CANCELLED");
        expect(server.requests).toHaveLength(1);
      },
    );
    await withRegistry(() => respond(503), async ({ client, server }) => {
      const stop = new AbortController();
      const opening = failureOf(client.openBlob(descriptor, { signal: stop.signal }));
      setTimeout(() => stop.abort(), 100);
      expect((await opening).code).toBe("CANCELLED");
      expect(server.requests).toHaveLength(1);
    }, { backoffMs: 60_000 });
  });

  it("is CANCELLED when the client is closed", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request) => cutAfter(serveRange(request, bytes), 50_000, "hang"),
      async ({ client }) => {
        const reading = failureOf(collect(client.openBlob(descriptor)));
        setTimeout(() => client.close(), 100);
        expect((await reading).code).toBe("CANCELLED");
      },
    );
  });
});

describe("RegistryClient.fetchSmallBlob", () => {
  it("gives verified bytes, also over a broken connection", async () => {
    const { bytes, descriptor } = randomBlob(SIZE_BYTES);
    await withRegistry(
      (request, count) =>
        count === 0 ? cutAfter(serveRange(request, bytes), 1000, "reset") : serveRange(request, bytes),
      async ({ client }) => {
        expect(await client.fetchSmallBlob(descriptor)).toEqual(bytes);
      },
    );
  });

  it("refuses other bytes of the same size", async () => {
    const { descriptor } = randomBlob(1000);
    const other = new Uint8Array(randomBytes(1000));
    await withRegistry(() => respond(200, { body: other }), async ({ client }) => {
      expect((await failureOf(client.fetchSmallBlob(descriptor))).code).toBe("CONTENT_DIGEST_MISMATCH");
    });
  });

  it("sends no request for a blob over 4 MiB", async () => {
    const { descriptor } = randomBlob(10);
    await withRegistry(() => respond(200), async ({ client, server }) => {
      const large = { ...descriptor, sizeBytes: 4 * 1024 * 1024 + 1 };
      expect((await failureOf(client.fetchSmallBlob(large))).code).toBe("LIMIT_EXCEEDED");
      expect(server.requests).toHaveLength(0);
    });
  });
});
