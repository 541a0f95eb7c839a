import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { digestOf } from "../../src/image/digest.ts";
import { formatImageManifest, parseImageManifest } from "../../src/image/image_manifest.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { blobOf, randomBlob, randomManifest } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { collect, streamOf } from "../support/streams.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

const MIB = 1024 * 1024;

describe("RegistryClient with docker-registry", () => {
  let server: RegistryServer;
  let client: RegistryClient;
  beforeAll(async () => {
    server = await startRegistryServer();
    client = new RegistryClient({ host: server.host, repository: "os/demo" });
  });
  afterAll(async () => {
    await client?.close();
    await server?.stop();
  });

  it("pushes an image of random bytes and fetches it by tag and by digest", async () => {
    const config = randomBlob(500);
    const layer = randomBlob(3 * MIB + 17);
    for (const { bytes, descriptor } of [config, layer]) {
      expect(await client.hasBlob(descriptor)).toBe(false);
      await client.pushBlob(descriptor, () => streamOf(bytes.subarray(0, 100), bytes.subarray(100)));
      expect(await client.hasBlob(descriptor)).toBe(true);
    }
    const bytes = formatImageManifest({
      config: config.descriptor,
      layers: [layer.descriptor],
      annotations: { "org.example.random": randomBytes(8).toString("hex") },
    });
    const document = blobOf(bytes, { mediaType: OCI_MANIFEST });
    await client.pushDocument(document, "v1");
    await client.pushDocument(document, document.descriptor.digest);

    expect(await client.resolve("v1")).toEqual(document);
    expect(await client.resolve(document.descriptor.digest)).toEqual(document);
    expect(await client.fetchDocument(document.descriptor)).toEqual(document);
    const manifest = parseImageManifest(bytes, document.descriptor);
    expect(await client.fetchSmallBlob(manifest.config)).toEqual(config.bytes);
    expect(await collect(client.openBlob(layer.descriptor))).toEqual(layer.bytes);
  });

  it("RP01 says REGISTRY_NOT_FOUND for an unknown tag, digest, blob and repository", async () => {
    const { descriptor } = randomManifest();
    const elsewhere = new RegistryClient({ host: server.host, repository: "no/such" });
    const attempts: (() => Promise<unknown>)[] = [
      () => client.resolve("no-such-tag"),
      () => client.resolve(descriptor.digest),
      () => client.fetchDocument(descriptor),
      () => client.fetchSmallBlob(descriptor),
      () => client.openBlob(descriptor),
      () => elsewhere.resolve("latest"),
    ];
    for (const attempt of attempts) {
      expect(await failureOf(attempt())).toMatchObject({
        code: "REGISTRY_NOT_FOUND",
        details: { status: 404 },
      });
    }
    await elsewhere.close();
  });

  it("is refused a blob that is not what its digest says, and nothing becomes visible", async () => {
    const { descriptor } = randomBlob(1000);
    const other = new Uint8Array(randomBytes(1000));
    const failure = await failureOf(client.pushBlob(descriptor, () => streamOf(other)));
    expect(failure.code).toBe("REGISTRY_PROTOCOL");
    expect(failure.message).toContain("DIGEST_INVALID");
    expect(await client.hasBlob(descriptor)).toBe(false);
  });

  it("is refused the artifacts manifest type, with the registry's own words", async () => {
    const { bytes } = randomManifest();
    const { descriptor } = blobOf(bytes, { mediaType: "application/vnd.ironcore.image.artifacts.v1+json" });
    const failure = await failureOf(client.pushDocument({ bytes, descriptor }, "edition-a"));
    expect(failure.code).toBe("REGISTRY_PROTOCOL");
    expect(failure.details.status).toBe(400);
    expect(failure.message).toContain("MANIFEST_INVALID");
  });

  it("pushes and streams 64 MiB, and four times as much in no more memory", async () => {
    const peakBytes = await peakMemoryOf(() => transfer(64));
    // Held whole, the larger blob would take 192 MiB more; garbage that waits to be collected is allowed for.
    expect(await peakMemoryOf(() => transfer(256))).toBeLessThan(peakBytes + 64 * MIB);
  });

  /** Sends a blob and fetches it again, neither of them ever whole in memory. */
  async function transfer(sizeMib: number): Promise<void> {
    const piece = new Uint8Array(randomBytes(MIB));
    const hash = createHash("sha256");
    for (let i = 0; i < sizeMib; i += 1) hash.update(piece);
    const digest = digestOf("sha256", hash.digest("hex"));
    const descriptor = {
      mediaType: "application/octet-stream",
      digest,
      sizeBytes: sizeMib * MIB,
      annotations: {},
    };
    await client.pushBlob(descriptor, (startByte) => {
      // Chunks end at whole MiB.
      let left = sizeMib - startByte / MIB;
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          left -= 1;
          controller.enqueue(piece);
          if (left === 0) controller.close();
        },
      }, { highWaterMark: 0 });
    });
    const received = createHash("sha256");
    const reader = (await client.openBlob(descriptor)).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      received.update(value);
    }
    expect(digestOf("sha256", received.digest("hex"))).toBe(digest);
  }
});

/** The largest resident set seen while `action` runs. */
async function peakMemoryOf(action: () => Promise<void>): Promise<number> {
  let peakBytes = process.memoryUsage().rss;
  const look = () => {
    peakBytes = Math.max(peakBytes, process.memoryUsage().rss);
  };
  const watch = setInterval(look, 5);
  try {
    await action();
  } finally {
    clearInterval(watch);
  }
  look();
  return peakBytes;
}
