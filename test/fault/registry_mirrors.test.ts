import { once } from "node:events";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import type { Place, Places } from "../../src/registry/mirror/place.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { Registries } from "../../src/registry/registries.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  respond,
  type Script,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { manifestDocument, manifestJsonOf } from "../support/image_documents.ts";
import { randomWord } from "../support/random_word.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const { bytes, descriptor } = randomBlob(100_000);
const document = manifestDocument(manifestJsonOf(["rootfs"], { annotations: { word: randomWord() } }));
const other = manifestDocument(manifestJsonOf(["rootfs"], { annotations: { word: randomWord() } }));

const asManifest = (content: Uint8Array) =>
  respond(200, { headers: { "Content-Type": OCI_MANIFEST }, body: content });

/** A server that has the blob and the document, under the tag, too. */
const having: Script = (request) =>
  request.path.includes("/manifests/") ? asManifest(document.bytes) : serveRange(request, bytes);

const mirrorAt = (host: string, changes: Partial<Place> = {}): Place => ({
  baseUrl: new URL(`http://${host}/v2/`),
  pulls: true,
  resolves: false,
  headers: {},
  ...changes,
});

/** A client of `upstream`'s repository os/demo through mirrors. */
async function withMirrors(
  host: string,
  places: Places,
  body: (client: RegistryClient) => Promise<void>,
): Promise<void> {
  await using registries = new Registries({ limits: QUICK, findPlaces: () => Promise.resolve(places) });
  await body(new RegistryClient({ host, repository: "os/demo", registries }));
}

/** A port where nobody listens. */
async function deadHost(): Promise<string> {
  const probe = createServer();
  probe.listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  probe.close();
  await once(probe, "close");
  return `127.0.0.1:${typeof address === "object" ? address?.port : 0}`;
}

describe("mirrors", () => {
  it("content comes from the first mirror that has it; the registry is told by ns, and not asked", async () => {
    await using upstream = await startFaultServer(having);
    await using empty = await startFaultServer(() => respond(404));
    await using full = await startFaultServer(having);
    const mirrors = [mirrorAt(empty.host), mirrorAt(full.host, { headers: { "x-mirror": "yes" } })];
    await withMirrors(upstream.host, { mirrors }, async (client) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect((await client.fetchDocument(document.descriptor)).bytes).toEqual(document.bytes);
      const ns = encodeURIComponent(upstream.host);
      const paths = [`blobs/${descriptor.digest}`, `manifests/${document.descriptor.digest}`];
      const expected = paths.map((path) => `/v2/os/demo/${path}?ns=${ns}`);
      expect(empty.requests.map(({ path }) => path)).toEqual(expected);
      expect(full.requests.map(({ path }) => path)).toEqual(expected);
      expect(full.requests.map(({ headers }) => headers["x-mirror"])).toEqual(["yes", "yes"]);
      expect(empty.requests.map(({ headers }) => headers["x-mirror"])).toEqual([undefined, undefined]);
      expect(upstream.connections).toBe(0);
    });
  });

  it("a tag is asked of the registry, unless the mirror may resolve", async () => {
    await using upstream = await startFaultServer(() => asManifest(other.bytes));
    await using mirror = await startFaultServer(having);
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect((await client.resolve("latest")).descriptor.digest).toBe(other.descriptor.digest);
      expect(mirror.requests).toEqual([]);
    });
    const resolving = { mirrors: [mirrorAt(mirror.host, { resolves: true })] };
    await withMirrors(upstream.host, resolving, async (client) => {
      expect((await client.resolve("latest")).descriptor.digest).toBe(document.descriptor.digest);
    });
  });

  it("a place that may not pull is not asked for content", async () => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(having);
    const mirrors = [mirrorAt(mirror.host, { pulls: false, resolves: true })];
    await withMirrors(upstream.host, { mirrors }, async (client) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(mirror.requests).toEqual([]);
    });
  });

  it("a path of one's own replaces /v2/", async () => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(having);
    const baseUrl = new URL(`http://${mirror.host}/cache/hub/`);
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host, { baseUrl })] }, async (client) => {
      await collect(client.openBlob(descriptor));
      expect(mirror.requests[0]?.path).toMatch(/^\/cache\/hub\/os\/demo\/blobs\//);
    });
  });

  it.each([401, 403, 404, 429, 500, 503])(
    "a mirror's %i costs one request, and is not the answer",
    async (status) => {
      await using upstream = await startFaultServer(having);
      await using mirror = await startFaultServer(() => respond(status));
      await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
        expect(mirror.requests).toHaveLength(1);
        expect(upstream.requests).toHaveLength(2);
        expect(upstream.requests.map(({ path }) => path).join()).not.toContain("ns=");
      });
    },
  );

  it("a dead mirror is asked once, and then left alone", async () => {
    await using upstream = await startFaultServer(having);
    await using slow = await startFaultServer(() => [{ hang: true }]);
    const mirrors = [mirrorAt(await deadHost()), mirrorAt(slow.host)];
    await withMirrors(upstream.host, { mirrors }, async (client) => {
      for (let count = 0; count < 5; count += 1) await client.fetchDocument(document.descriptor);
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(slow.requests).toHaveLength(1);
    });
  });

  it("what no mirror has is what the registry says it is", async () => {
    await using upstream = await startFaultServer(() => respond(404));
    await using mirror = await startFaultServer(() => respond(401));
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect((await failureOf(client.openBlob(descriptor))).code).toBe("REGISTRY_NOT_FOUND");
    });
  });

  const flipped = bytes.slice();
  flipped[50_000] = flipped[50_000]! ^ 1;

  it.each<[string, (whole: Uint8Array) => Answer]>([
    ["another document", () => asManifest(other.bytes)],
    [
      "no manifest type",
      () => respond(200, { headers: { "Content-Type": "text/html" }, body: document.bytes }),
    ],
    ["a bomb", () => asManifest(new Uint8Array(4 * 1024 * 1024 + 1))],
    ["a coding", (whole) => respond(200, { headers: { "Content-Encoding": "br" }, body: whole })],
  ])("a mirror that serves %s for a digest is passed over", async (_name, answer) => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(() => answer(document.bytes));
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect((await client.fetchDocument(document.descriptor)).bytes).toEqual(document.bytes);
      expect((await client.resolve(document.descriptor.digest)).bytes).toEqual(document.bytes);
      expect(mirror.requests).toHaveLength(1);
    });
  });

  it.each<[string, Answer]>([
    ["wrong bytes", respond(200, { body: flipped })],
    ["too few bytes", respond(200, { body: bytes.subarray(1) })],
    ["a broken answer", cutAfter(respond(200, { body: bytes }), 50_000, "reset")],
  ])("a small blob of which a mirror has %s comes from the next place", async (_name, answer) => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(() => answer);
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect(await client.fetchSmallBlob(descriptor)).toEqual(bytes);
      expect(await client.fetchSmallBlob(descriptor)).toEqual(bytes);
      expect(mirror.requests).toHaveLength(1);
    });
  });

  it("a large blob that a mirror has wrong comes from the next place when it is asked for again", async () => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(() => respond(200, { body: flipped }));
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(flipped);
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect([mirror.requests.length, upstream.requests.length]).toEqual([1, 1]);
    });
  });

  it("a blob that breaks at a mirror goes on where it broke, at the next place", async () => {
    await using upstream = await startFaultServer(having);
    await using mirror = await startFaultServer(() =>
      cutAfter(respond(200, { body: bytes }), 60_000, "close")
    );
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect(await collect(client.openBlob(descriptor))).toEqual(bytes);
      expect(upstream.requests.map(({ headers }) => headers.range)).toEqual(["bytes=60000-99999"]);
      expect(mirror.requests).toHaveLength(1);
    });
  });

  it("uploads go to the registry itself", async () => {
    await using upstream = await startFaultServer(() => respond(200));
    await using mirror = await startFaultServer(having);
    await withMirrors(upstream.host, { mirrors: [mirrorAt(mirror.host)] }, async (client) => {
      expect(await client.hasBlob(descriptor)).toBe(true);
      expect(mirror.connections).toBe(0);
    });
  });
});
