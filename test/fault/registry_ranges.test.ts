import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { RegistryLimits } from "../../src/registry/limits.ts";
import { Registries } from "../../src/registry/registries.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  respond,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const KIB = 1024;
/** Many segments of a small blob. */
const SMALL: Partial<RegistryLimits> = {
  plainBlobBytes: 256 * KIB,
  segmentBytes: 256 * KIB,
  readAheadBytes: 4096 * KIB,
};
const blob = randomBlob(24 * 1024 * KIB);

/** At a pace on each connection that makes several worth while. */
function slowly(answer: Answer, stepMs = 20): Answer {
  return answer.flatMap((step) => {
    if (!("send" in step) || typeof step.send === "string") return [step];
    const { send } = step;
    const pieces = Math.ceil(send.length / (128 * KIB));
    return Array.from({ length: pieces }, (_none, i) => i).flatMap((i) => [
      { send: send.subarray(i * 128 * KIB, (i + 1) * 128 * KIB) },
      { waitMs: stepMs },
    ]);
  });
}

function rangeOf({ headers }: SeenRequest): { first: number; last: number } {
  const [, first, last] = /^bytes=([0-9]+)-([0-9]+)$/.exec(headers.range ?? "") ?? [];
  return { first: Number(first), last: Number(last) };
}

/** Whether a stream gives the blob's bytes from an offset on; told by hand, because many millions take `toEqual` long. */
async function isWhole(opened: Promise<ReadableStream<Uint8Array>>, startByte = 0): Promise<boolean> {
  return Buffer.from(await collect(opened)).equals(blob.bytes.subarray(startByte));
}

/** Bytes that were asked for more than once; of a request that was cut, only what it was given counts. */
function overlapOf(
  requests: readonly SeenRequest[],
  givenBytes = (_request: SeenRequest) => Infinity,
): number {
  const ranges = requests.map((request) => {
    const { first, last } = rangeOf(request);
    return { first, last: Math.min(last, first + givenBytes(request) - 1) };
  }).sort((a, b) => a.first - b.first);
  let overlapBytes = 0;
  let end = 0;
  for (const { first, last } of ranges) {
    overlapBytes += Math.max(0, Math.min(end, last + 1) - first);
    end = Math.max(end, last + 1);
  }
  return overlapBytes;
}

describe("a large blob", () => {
  it("comes over several connections where each is slow, in order, each byte asked for once", async () => {
    await withRegistry((request) => slowly(serveRange(request, blob.bytes)), async ({ client, server }) => {
      expect(await isWhole(client.openBlob(blob.descriptor))).toBe(true);
      expect(server.connections).toBeGreaterThan(2);
      expect(server.connections).toBeLessThanOrEqual(2 * 12);
      expect(overlapOf(server.requests)).toBe(0);
      expect(rangeOf(server.requests[0] ?? failed())).toEqual({ first: 0, last: 256 * KIB - 1 });
    }, { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 });
  });

  it("is continued at any byte over several connections", async () => {
    const startByte = 1_234_567;
    await withRegistry((request) => slowly(serveRange(request, blob.bytes)), async ({ client, server }) => {
      expect(await isWhole(client.openBlob(blob.descriptor, { startByte }), startByte)).toBe(true);
      expect(server.connections).toBeGreaterThan(2);
      expect(rangeOf(server.requests[0] ?? failed()).first).toBe(startByte);
    }, { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 });
  });

  it("comes over one connection from a server that does not serve ranges", async () => {
    await withRegistry(() => slowly(respond(200, { body: blob.bytes }), 1), async ({ client, server }) => {
      expect(await isWhole(client.openBlob(blob.descriptor))).toBe(true);
      expect(server.requests).toHaveLength(1);
    }, SMALL);
  });

  it("is asked for plainly when a server answers 416 to the first range", async () => {
    await withRegistry(
      (request) => request.headers.range ? respond(416) : respond(200, { body: blob.bytes }),
      async ({ client, server }) => {
        expect(await isWhole(client.openBlob(blob.descriptor))).toBe(true);
        expect(server.requests.map(({ headers }) => headers.range)).toEqual(["bytes=0-262143", undefined]);
      },
      SMALL,
    );
  });

  it("RP19 a server that stops serving ranges gives all of it once more, and no third time", async () => {
    await withRegistry(
      (request) =>
        rangeOf(request).first < 6 * 1024 * KIB
          ? slowly(serveRange(request, blob.bytes))
          : respond(200, { body: blob.bytes }),
      async ({ client, server }) => {
        expect(await isWhole(client.openBlob(blob.descriptor))).toBe(true);
        // Each segment that was asked for before its turn finds out; one answer is read.
        const whole = server.requests.filter((request) => rangeOf(request).first >= 6 * 1024 * KIB);
        expect(whole.length).toBeLessThanOrEqual(14);
      },
      { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 },
    );
  });

  it.each(["reset", "close", "hang"] as const)(
    "RP15 RP16 every seventh answer that ends in a %s costs at most its own segment",
    async (end) => {
      const cut = new Set<SeenRequest>();
      await withRegistry(
        (request, count) => {
          const answer = serveRange(request, blob.bytes);
          if (count % 7 !== 5) return slowly(answer, 10);
          cut.add(request);
          return cutAfter(answer, 50_000, end);
        },
        async ({ client, server }) => {
          expect(await isWhole(client.openBlob(blob.descriptor))).toBe(true);
          const givenBytes = (request: SeenRequest) => cut.has(request) ? 50_000 : Infinity;
          expect(overlapOf(server.requests, givenBytes)).toBeLessThanOrEqual(cut.size * 256 * KIB);
        },
        { ...SMALL, attemptsPerBlob: 1000 },
      );
    },
  );

  it.each<[string, (request: SeenRequest) => Answer]>([
    ["another start", (request) => {
      const { first, last } = rangeOf(request);
      return respond(206, {
        headers: { "Content-Range": `bytes ${first + 1}-${last}/${blob.bytes.length}` },
        body: blob.bytes.subarray(first + 1, last + 1),
      });
    }],
    ["more than was asked for", (request) => {
      const { first, last } = rangeOf(request);
      return respond(206, {
        headers: { "Content-Range": `bytes ${first}-${last + 1}/${blob.bytes.length}` },
        body: blob.bytes.subarray(first, last + 2),
      });
    }],
    ["no Content-Range", (request) => {
      const { first, last } = rangeOf(request);
      return respond(206, { body: blob.bytes.subarray(first, last + 1) });
    }],
  ])("RP20 RP21 a 206 with %s is REGISTRY_PROTOCOL, whichever connection it comes on", async (_name, lie) => {
    for (const from of [0, 6 * 1024 * KIB]) {
      await withRegistry(
        (request) => rangeOf(request).first < from ? slowly(serveRange(request, blob.bytes)) : lie(request),
        async ({ client }) => {
          expect((await failureOf(collect(client.openBlob(blob.descriptor)))).code).toBe("REGISTRY_PROTOCOL");
        },
        { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 },
      );
    }
  });

  it("RP49 a server that fails for good is asked little more than over one connection", async () => {
    await withRegistry(
      (request) =>
        rangeOf(request).first < 6 * 1024 * KIB ? slowly(serveRange(request, blob.bytes)) : respond(503),
      async ({ client, server }) => {
        const failure = await failureOf(collect(client.openBlob(blob.descriptor)));
        expect(failure.code).toBe("REGISTRY_UNAVAILABLE");
        const refused = server.requests.filter((request) => rangeOf(request).first >= 6 * 1024 * KIB);
        // Those that were under way before their turn, and three in a row by whoever reads in order.
        expect(refused.length).toBeLessThanOrEqual(16 + 3);
        const [worst = 0] = [...countsOf(refused).values()].sort((a, b) => b - a);
        expect(worst).toBeLessThanOrEqual(4);
      },
      { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 },
    );
  });

  it("is given up at once when its reader goes, on all connections", async () => {
    await withRegistry((request) => slowly(serveRange(request, blob.bytes)), async ({ client, server }) => {
      const reader = (await client.openBlob(blob.descriptor)).getReader();
      let received = 0;
      while (received < 8 * 1024 * KIB) received += (await reader.read()).value?.length ?? 0;
      await reader.cancel();
      const { requests } = server;
      // What was on its way arrives.
      await new Promise((resolve) => setTimeout(resolve, 200));
      const before = requests.length;
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect(requests.length).toBe(before);
    }, { ...SMALL, stallTimeoutMs: 5000, headersTimeoutMs: 5000 });
  });
});

describe("many blobs at once", () => {
  it("share memory and connections: nothing is fetched before its turn beyond either", async () => {
    const blobs = Array.from({ length: 6 }, () => randomBlob(3 * 1024 * KIB));
    let open = 0;
    let most = 0;
    await using server = await startFaultServer((request) => {
      open += 1;
      most = Math.max(most, open);
      const asked = blobs.find(({ descriptor }) => request.path.endsWith(descriptor.digest)) ?? failed();
      const steps = slowly(serveRange(request, asked.bytes), 5);
      setTimeout(() => open -= 1, steps.length / 2 * 5);
      return steps;
    });
    const limits = { ...SMALL, readAheadBytes: 1024 * KIB, connectionsPerHost: 8, transfersAtOnce: 3 };
    await using registries = new Registries({ limits });
    const client = new RegistryClient({ host: server.host, repository: "os/demo", registries });
    const digests = await Promise.all(blobs.map(async ({ descriptor }) => {
      const bytes = await collect(client.openBlob(descriptor));
      return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    }));
    expect(digests).toEqual(blobs.map(({ descriptor }) => descriptor.digest));
    expect(server.connections).toBeLessThanOrEqual(8 + 3);
  });

  it("wait for their turn, which comes when another has been read or given up", async () => {
    const small = randomBlob(100_000);
    await withRegistry((request) => serveRange(request, small.bytes), async ({ client, server }) => {
      const first = await client.openBlob(small.descriptor);
      const second = client.openBlob(small.descriptor);
      const third = collect(client.openBlob(small.descriptor));
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(server.requests).toHaveLength(1);
      await first.cancel();
      expect(await collect(second)).toEqual(small.bytes);
      expect(await third).toEqual(small.bytes);
    }, { transfersAtOnce: 1 });
  });

  it("do not wait for one that failed, at its beginning or in the middle", async () => {
    const small = randomBlob(100_000);
    await withRegistry(
      (request, count) => {
        if (count === 0) return respond(404);
        return count === 1
          ? respond(200, { body: small.bytes.subarray(1) })
          : serveRange(request, small.bytes);
      },
      async ({ client }) => {
        expect((await failureOf(client.openBlob(small.descriptor))).code).toBe("REGISTRY_NOT_FOUND");
        expect((await failureOf(client.openBlob(small.descriptor))).code).toBe("CONTENT_SIZE_MISMATCH");
        expect(await collect(client.openBlob(small.descriptor))).toEqual(small.bytes);
      },
      { transfersAtOnce: 1 },
    );
  });
});

function countsOf(requests: readonly SeenRequest[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const request of requests) {
    const { first } = rangeOf(request);
    counts.set(first, (counts.get(first) ?? 0) + 1);
  }
  return counts;
}

function failed(): never {
  throw new Error("There is no such request");
}
