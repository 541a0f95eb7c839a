/** An upload that one run of the program began, and another goes on with. */
import { describe, expect, it } from "vitest";
import type { RememberedUpload, UploadMemory } from "../../src/image/image_source.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { type Blob, randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { chunksOf, streamOf } from "../support/streams.ts";
import {
  startUploadRegistry,
  type UploadRegistry,
  type UploadRegistryOptions,
} from "../support/upload_registry.ts";

const CHUNK_BYTES = 100_000;
const SIZE_BYTES = 350_001;
const IN_CHUNKS = ["POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"];

type Kept = { session: RememberedUpload | undefined };

function memoryIn(kept: Kept): UploadMemory {
  return {
    recall: () => {
      const { session } = kept;
      kept.session = undefined;
      return Promise.resolve(session);
    },
    keep: (session) => Promise.resolve(void (kept.session = session)),
    forget: () => Promise.resolve(void (kept.session = undefined)),
  };
}

type Rig = {
  readonly registry: UploadRegistry;
  readonly blob: Blob;
  readonly kept: Kept;
  /** A client of its own, as another process has; it gives up when it has sent so much. */
  readonly run: (stopAfterBytes?: number) => Promise<string>;
  readonly methods: () => string[];
  readonly stored: () => Uint8Array | undefined;
};

async function withRuns(options: UploadRegistryOptions, body: (rig: Rig) => Promise<void>): Promise<void> {
  const registry = await startUploadRegistry(options);
  const blob = randomBlob(SIZE_BYTES);
  const kept: Kept = { session: undefined };
  try {
    await body({
      registry,
      blob,
      kept,
      run: async (stopAfterBytes = Infinity) => {
        await using client = new RegistryClient({
          host: registry.host,
          repository: "os/demo",
          limits: { ...QUICK, chunkBytes: CHUNK_BYTES },
        });
        const stop = new AbortController();
        const open = (startByte: number) => streamOf(...chunksOf(blob.bytes.subarray(startByte), 25_000));
        return await client.pushBlob(blob.descriptor, open, {
          signal: stop.signal,
          memory: memoryIn(kept),
          onProgress: (doneBytes) => {
            if (doneBytes > stopAfterBytes) stop.abort();
          },
        });
      },
      methods: () => registry.requests.map(({ method }) => method),
      stored: () => registry.blobs.get(`os/demo ${blob.descriptor.digest}`),
    });
  } finally {
    await registry.stop();
  }
}

/** Breaks a run off in its third chunk. */
async function breakOff({ registry, run, kept }: Rig): Promise<void> {
  expect((await failureOf(run(225_000))).code).toBe("CANCELLED");
  expect(kept.session?.url).toContain(`http://${registry.host}/v2/os/demo/blobs/uploads/`);
}

/** Only the second run asks how far the first came; a request that the first had broken off may be seen late. */
function ofSecondRun({ requests }: UploadRegistry) {
  return requests.slice(requests.findIndex(({ method }) => method === "GET"));
}

describe("RegistryClient.pushBlob in another run", () => {
  it("asks how far the first came, and sends only the rest", () =>
    withRuns({}, async (rig) => {
      await breakOff(rig);
      expect(await rig.run()).toBe("uploaded");
      expect(rig.stored()).toEqual(rig.blob.bytes);
      const requests = ofSecondRun(rig.registry);
      expect(requests.map(({ method }) => method)).not.toContain("POST");
      const sentBytes = requests.reduce((sum, each) => sum + each.receivedBytes, 0);
      expect(sentBytes).toBeGreaterThan(0);
      // Two chunks had arrived whole, and been answered.
      expect(sentBytes).toBeLessThanOrEqual(SIZE_BYTES - 2 * CHUNK_BYTES);
      expect(rig.kept.session).toBeUndefined();
    }));

  it("goes on after each of several breaks", () =>
    withRuns({}, async (rig) => {
      for (const stopAfterBytes of [125_000, 225_000, 325_000]) {
        expect((await failureOf(rig.run(stopAfterBytes))).code).toBe("CANCELLED");
      }
      await rig.run();
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.methods().filter((method) => method === "POST")).toEqual(["POST"]);
    }));

  let asked = 0;
  const onSecondRun = (fault: { status: number } | { forget: true }): UploadRegistryOptions => ({
    fault: ({ method }) => method === "GET" && asked++ === 0 ? fault : undefined,
  });
  it.each<[string, UploadRegistryOptions]>([
    ["has forgotten the upload", onSecondRun({ forget: true })],
    ["is not its own any more", onSecondRun({ status: 403 })],
    ["cannot answer", onSecondRun({ status: 500 })],
  ])("begins anew at a registry that %s", (_case, options) => {
    asked = 0;
    return withRuns(options, async (rig) => {
      await breakOff(rig);
      expect(await rig.run()).toBe("uploaded");
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.methods().slice(-IN_CHUNKS.length)).toEqual(IN_CHUNKS);
    });
  });

  it("begins anew at a registry that claims more than the blob has", () => {
    let isLying = false;
    return withRuns(
      { rangeOf: (bytes) => `0-${isLying ? SIZE_BYTES : Math.max(0, bytes - 1)}` },
      async (rig) => {
        await breakOff(rig);
        isLying = true;
        // It lies of the new upload, too; but that is no matter of memory.
        expect((await failureOf(rig.run())).code).toBe("REGISTRY_PROTOCOL");
        expect(ofSecondRun(rig.registry).slice(0, 3).map(({ method }) => method)).toEqual([
          "GET",
          "POST",
          "PATCH",
        ]);
      },
    );
  });

  it("begins anew when what the registry has is not what was sent: it checks the digest, and we believe it", () =>
    withRuns({}, async (rig) => {
      await breakOff(rig);
      rig.registry.spoilUploads();
      expect(await rig.run()).toBe("uploaded");
      expect(rig.stored()).toEqual(rig.blob.bytes);
      expect(rig.methods().slice(-IN_CHUNKS.length)).toEqual(IN_CHUNKS);
      expect(rig.kept.session).toBeUndefined();
    }));

  it.each([
    ["another server", (other: string) => `http://${other}/v2/os/demo/blobs/uploads/s0`],
    ["another scheme", (_other: string, own: string) => `https://${own}/v2/os/demo/blobs/uploads/s0`],
    ["nowhere", () => "uploads/s0"],
  ])("does not follow a memory of %s", (_case, urlOf) =>
    withRuns({}, async (rig) => {
      const other = await startUploadRegistry();
      try {
        rig.kept.session = { url: urlOf(other.host, rig.registry.host), chunkBytes: 0 };
        expect(await rig.run()).toBe("uploaded");
        expect(other.requests).toEqual([]);
        expect(rig.methods()).toEqual(IN_CHUNKS);
      } finally {
        await other.stop();
      }
    }));

  it("keeps the size of chunks that the registry asked for", () =>
    withRuns({ minChunkBytes: 150_000 }, async (rig) => {
      await breakOff(rig);
      expect(rig.kept.session?.chunkBytes).toBe(150_000);
    }));
});
