import { describe, expect, it } from "vitest";
import type { PushBlobOptions } from "../../src/image/image_source.ts";
import type { RegistryLimits } from "../../src/registry/limits.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { type Blob, randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { chunksOf, streamOf } from "../support/streams.ts";
import {
  startUploadRegistry,
  type UploadFault,
  type UploadRegistry,
  type UploadRegistryOptions,
} from "../support/upload_registry.ts";

const CHUNK_BYTES = 100_000;
const SIZE_BYTES = 350_001;
const IN_CHUNKS = ["POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"];

type Rig = {
  readonly registry: UploadRegistry;
  readonly blob: Blob;
  /** Where the content was opened at, each time. */
  readonly opened: number[];
  readonly push: (options?: PushBlobOptions) => Promise<string>;
  /** What the registry has under the blob's name. */
  readonly stored: () => Uint8Array | undefined;
  readonly methods: () => string[];
  readonly ranges: () => (string | undefined)[];
  readonly sentBytes: () => number;
};

/** Runs `body` with a registry, a client whose chunks have 100,000 bytes, and a blob of three chunks and a half. */
async function withUpload(
  { sizeBytes = SIZE_BYTES, limits = {}, give = (bytes) => bytes, ...options }: UploadRegistryOptions & {
    sizeBytes?: number;
    limits?: Partial<RegistryLimits>;
    give?: (bytes: Uint8Array) => Uint8Array;
  },
  body: (rig: Rig) => Promise<void>,
): Promise<void> {
  const registry = await startUploadRegistry(options);
  const client = new RegistryClient({
    host: registry.host,
    repository: "os/demo",
    limits: { ...QUICK, commitTimeoutMs: 400, chunkBytes: CHUNK_BYTES, ...limits },
  });
  const blob = randomBlob(sizeBytes);
  const opened: number[] = [];
  const open = (startByte: number) => {
    opened.push(startByte);
    return streamOf(...chunksOf(give(blob.bytes).subarray(startByte), 33_333));
  };
  try {
    await body({
      registry,
      blob,
      opened,
      push: (pushing) => client.pushBlob(blob.descriptor, open, pushing),
      stored: () => registry.blobs.get(`os/demo ${blob.descriptor.digest}`),
      methods: () => registry.requests.map(({ method }) => method),
      ranges: () =>
        registry.requests.filter(({ method }) => method === "PATCH").map((each) => each.contentRange),
      sentBytes: () => registry.requests.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0),
    });
  } finally {
    await client.close();
    await registry.stop();
  }
}

/** The fault on the nth request of a method, counted from 0, and no other. */
function on(method: string, nth: number, fault: UploadFault): NonNullable<UploadRegistryOptions["fault"]> {
  let seen = 0;
  return (request) => request.method === method && seen++ === nth ? fault : undefined;
}

describe("RegistryClient.pushBlob in chunks", () => {
  it("sends a large blob chunk by chunk, each where the answer before it said", () =>
    withUpload({}, async ({ push, registry, blob, stored, methods, ranges, opened }) => {
      expect(await push()).toBe("uploaded");
      expect(stored()).toEqual(blob.bytes);
      expect(methods()).toEqual(IN_CHUNKS);
      expect(ranges()).toEqual(["0-99999", "100000-199999", "200000-299999", "300000-350000"]);
      expect(opened).toEqual([0, 100_000, 200_000, 300_000]);
      const paths = registry.requests.slice(1).map(({ path }) => /step=\d+/.exec(path)?.[0]);
      expect(paths).toEqual(["step=0", "step=2", "step=3", "step=4", "step=5"]);
    }));

  it.each([
    ["as large as a chunk", CHUNK_BYTES],
    ["empty", 0],
  ])(
    "sends a blob %s in one piece",
    (_case, sizeBytes) =>
      withUpload({ sizeBytes }, async ({ push, blob, stored, methods }) => {
        await push();
        expect(stored()).toEqual(blob.bytes);
        expect(methods()).toEqual(["POST", "PUT"]);
      }),
  );

  it("sends no chunk smaller than the registry takes, but for the last", () =>
    withUpload({ minChunkBytes: 200_000 }, async ({ push, blob, stored, ranges }) => {
      await push();
      expect(stored()).toEqual(blob.bytes);
      expect(ranges()).toEqual(["0-199999", "200000-350000"]);
    }));

  it("tells how much was sent", () =>
    withUpload({}, async ({ push }) => {
      const told: number[] = [];
      await push({ onProgress: (doneBytes) => told.push(doneBytes) });
      expect(told).toEqual([...told].sort((a, b) => a - b));
      expect(told.at(-1)).toBe(SIZE_BYTES);
    }));

  it.each([-1, 1])(
    "RP35 a source with %i bytes more than its descriptor is CONTENT_SIZE_MISMATCH",
    (by) =>
      withUpload({
        give: (bytes) => by > 0 ? new Uint8Array([...bytes, 1]) : bytes.subarray(0, by),
      }, async ({ push, stored }) => {
        expect((await failureOf(push())).code).toBe("CONTENT_SIZE_MISMATCH");
        expect(stored()).toBeUndefined();
      }),
  );

  it("other bytes than the digest's are refused by the registry, and sent once", () =>
    withUpload({ give: (bytes) => bytes.map((byte) => byte ^ 1) }, async ({ push, stored, sentBytes }) => {
      expect(await failureOf(push())).toMatchObject({ code: "REGISTRY_PROTOCOL", details: { status: 400 } });
      expect([stored(), sentBytes()]).toEqual([undefined, SIZE_BYTES]);
    }));
});

describe("RegistryClient.pushBlob after a break", () => {
  it.each([0, 1, 2, 3])(
    "goes on in the middle of chunk %i, and sends only the rest",
    (nth) =>
      withUpload({ fault: on("PATCH", nth, { cutAfterBytes: 40_000 }) }, async (rig) => {
        expect(await rig.push()).toBe("uploaded");
        expect(rig.stored()).toEqual(rig.blob.bytes);
        expect(rig.sentBytes()).toBe(SIZE_BYTES);
        const from = 100_000 * nth + 40_000;
        expect(rig.ranges()[nth + 1]).toBe(`${from}-${Math.min(from + CHUNK_BYTES, SIZE_BYTES) - 1}`);
        expect(rig.methods().filter((method) => method === "POST" || method === "GET")).toEqual([
          "POST",
          "GET",
        ]);
      }),
  );

  it("goes on after a chunk whose answer was lost, and sends nothing twice", () =>
    withUpload({ fault: on("PATCH", 1, { loseAnswer: true }) }, async (rig) => {
      await rig.push();
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.sentBytes()).toBe(SIZE_BYTES);
    }));

  it("knows that it is done when only the last answer was lost", () =>
    withUpload({ fault: on("PUT", 0, { loseAnswer: true }) }, async (rig) => {
      expect(await rig.push()).toBe("uploaded");
      expect(rig.methods()).toEqual([...IN_CHUNKS, "GET", "HEAD"]);
      expect(rig.stored()).toEqual(rig.blob.bytes);
    }));

  it("goes on after a 503, and where the registry has other bytes than was thought", () =>
    withUpload({ fault: on("PATCH", 2, { status: 503 }) }, async (rig) => {
      await rig.push();
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.methods()).toEqual(["POST", "PATCH", "PATCH", "PATCH", "GET", "PATCH", "PATCH", "PUT"]);
    }));

  it.each([
    ["a chunk", on("PATCH", 2, { forget: true })],
    ["the end", on("PUT", 0, { forget: true })],
  ])(
    "begins anew when the registry has forgotten the upload at %s",
    (_case, fault) =>
      withUpload({ fault }, async (rig) => {
        await rig.push();
        expect(rig.stored()).toEqual(rig.blob.bytes);
        expect(rig.methods().filter((method) => method === "POST")).toHaveLength(2);
      }),
  );

  it.each([405, 411, 416])(
    "sends one piece to a registry that answers chunks with %i",
    (status) =>
      withUpload(
        { fault: ({ method }) => method === "PATCH" ? { status } : undefined },
        async (rig) => {
          expect(await rig.push()).toBe("uploaded");
          expect(rig.stored()).toEqual(rig.blob.bytes);
          expect(rig.methods()).toEqual(["POST", "PATCH", "GET", "PATCH", "GET", "POST", "PUT"]);
        },
      ),
  );

  it("gives up on a registry that breaks every chunk at its start, with the break's own error", () =>
    withUpload(
      { fault: ({ method }) => method === "PATCH" ? { status: 503 } : undefined },
      async (rig) => {
        expect(await failureOf(rig.push())).toMatchObject({
          code: "REGISTRY_UNAVAILABLE",
          details: { status: 503 },
        });
        expect(rig.methods().filter((method) => method === "PATCH")).toHaveLength(3);
      },
    ));

  it("gives up on a registry that takes a chunk and forgets it, however often", () =>
    withUpload(
      {
        fault: ({ method, count }) =>
          method === "PATCH" && count % 4 === 2
            ? { status: 503 }
            : method === "GET"
            ? { forget: true }
            : undefined,
      },
      async (rig) => {
        expect((await failureOf(rig.push())).code).toBe("REGISTRY_UNAVAILABLE");
        expect(rig.registry.requests.length).toBeLessThan(20);
      },
    ));

  it("goes through any number of breaks while each brings bytes", () => {
    let patches = 0;
    return withUpload(
      {
        fault: ({ method }) => method === "PATCH" && patches++ < 20 ? { cutAfterBytes: 10_000 } : undefined,
      },
      async (rig) => {
        await rig.push();
        expect(rig.stored()).toEqual(rig.blob.bytes);
        expect(rig.sentBytes()).toBe(SIZE_BYTES);
      },
    );
  });

  it("sends again what the registry says it did not keep of a chunk", () =>
    withUpload({ fault: on("PATCH", 1, { keepBytes: 70_000 }) }, async (rig) => {
      await rig.push();
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.ranges().slice(2)).toEqual(["170000-269999", "270000-350000"]);
    }));

  it("is REGISTRY_PROTOCOL when the registry claims more than it was sent", () =>
    withUpload({ rangeOf: (bytes) => `0-${bytes + 10}` }, async (rig) => {
      expect((await failureOf(rig.push())).code).toBe("REGISTRY_PROTOCOL");
      expect(rig.stored()).toBeUndefined();
    }));

  it("gives up on a registry that says it takes nothing", () =>
    withUpload({ rangeOf: () => "0-0" }, async (rig) => {
      expect(await failureOf(rig.push())).toMatchObject({
        code: "REGISTRY_PROTOCOL",
        details: { status: 416 },
      });
      expect(rig.registry.requests.length).toBeLessThan(12);
    }));

  it("is CANCELLED by its signal in the middle of a chunk", () => {
    const stop = new AbortController();
    return withUpload({}, async (rig) => {
      const onProgress = (doneBytes: number) => {
        if (doneBytes > 150_000) stop.abort();
      };
      expect((await failureOf(rig.push({ signal: stop.signal, onProgress }))).code).toBe("CANCELLED");
      expect(rig.stored()).toBeUndefined();
    });
  });
});

describe("RegistryClient.pushBlob from another repository", () => {
  const mountFrom = "os/other";
  const holdIn = ({ registry, blob }: Rig) =>
    registry.blobs.set(`${mountFrom} ${blob.descriptor.digest}`, blob.bytes);

  it("sends no byte of a blob that the registry takes over", () =>
    withUpload({}, async (rig) => {
      holdIn(rig);
      expect(await rig.push({ mountFrom })).toBe("mounted");
      expect(rig.registry.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
        `POST /v2/os/demo/blobs/uploads/?mount=sha256%3A${
          rig.blob.descriptor.digest.slice(7)
        }&from=os%2Fother`,
      ]);
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.opened).toEqual([]);
    }));

  it("uploads in the session that comes with a 202", () =>
    withUpload({}, async (rig) => {
      expect(await rig.push({ mountFrom })).toBe("uploaded");
      expect(rig.methods()).toEqual(IN_CHUNKS);
      expect(rig.stored()).toEqual(rig.blob.bytes);
    }));

  it.each([401, 403, 404, 405])(
    "uploads as ever when the registry answers %i",
    (status) =>
      withUpload({ fault: on("POST", 0, { status }) }, async (rig) => {
        holdIn(rig);
        expect(await rig.push({ mountFrom })).toBe("uploaded");
        expect(rig.methods()).toEqual(["POST", ...IN_CHUNKS]);
        expect(rig.registry.requests[1]?.path).toBe("/v2/os/demo/blobs/uploads/");
      }),
  );

  it("asks once only: after a 503 the blob is uploaded", () =>
    withUpload({ fault: on("POST", 0, { status: 503 }) }, async (rig) => {
      holdIn(rig);
      expect(await rig.push({ mountFrom })).toBe("uploaded");
      expect(rig.registry.requests[1]?.path).toBe("/v2/os/demo/blobs/uploads/");
    }));
});
