/** Whole pulls from a registry that misbehaves: the code, and what is in the cache afterwards, byte by byte. */
import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withDeadline } from "../../src/agent/deadline.ts";
import { withSource } from "../../src/agent/open_source.ts";
import type { OperationOptions, Progress } from "../../src/agent/progress.ts";
import { type PulledImage, pullResolved } from "../../src/agent/pull_image.ts";
import { resolveImage } from "../../src/agent/resolve_image.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "../support/agent_kit.ts";
import { blobOf, randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  head,
  respond,
  respondChunked,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { isRight, serveImage, treeOf, withPulls } from "../support/pull_kit.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const newImage = (rootfs = randomBlob(300_000).bytes): OsImage =>
  osImage({ kernel: randomKernel(), initramfs: randomInitramfs(), rootfs });

const isFor = (request: SeenRequest, image: OsImage) =>
  request.path.endsWith(image.layers.rootfs?.descriptor.digest ?? "none");
const rangesOf = (requests: readonly SeenRequest[], image: OsImage) =>
  requests.filter((request) => isFor(request, image)).map(({ headers }) => headers.range);
const rootfsOf = (image: OsImage) => image.layers.rootfs?.bytes ?? new Uint8Array();

/**
 * Pulls while the rootfs is answered by `spoil`, then once more from a registry that is well.
 *
 * @returns the ranges of the rootfs that were asked for
 */
async function pullTwice(
  image: OsImage,
  spoil: (request: SeenRequest, count: number) => Answer,
  expected: { readonly code: string; readonly partials: 0 | 1 | "any" },
): Promise<readonly (string | undefined)[]> {
  const root = join(directory(), "root");
  let isWell = false;
  let ranges: readonly (string | undefined)[] = [];
  let count = 0;
  await withPulls({
    root,
    script: (request) =>
      !isWell && isFor(request, image) ? spoil(request, count++) : serveImage(request, image),
    limits: { rateWindowMs: 100, rateWindowBytes: 1000 },
  }, async ({ pull, server }) => {
    const before = await treeOf(root);
    const failure = await failureOf(pull());
    expect(failure.code).toBe(expected.code);
    if (expected.partials === 0 && !failure.retryable) expect(await treeOf(root)).toEqual(before);
    expect(layoutProblems(root, { partials: expected.partials })).toEqual([]);
    isWell = true;
    expect(await isRight(await pull(), image)).toBe(true);
    expect(layoutProblems(root)).toEqual([]);
    ranges = rangesOf(server.requests, image);
  });
  return ranges;
}

/** Such a part ten times a second. */
function slowly(body: Uint8Array, stepBytes: number): Answer {
  return Array.from({ length: Math.ceil(body.length / stepBytes) }, (_none, i) => [
    { send: body.subarray(i * stepBytes, (i + 1) * stepBytes) },
    { waitMs: 100 },
  ]).flat();
}

describe("a pull, and the next one", () => {
  it("RP07 HM02 by digest, of what is not what it says: told by its digest before it is read, S0", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    const wished = image.manifest.descriptor.digest;
    const bodies = ["{}", "no JSON", "", new Uint8Array(image.manifest.bytes).fill(32, 0, 1)];
    let body: Uint8Array | string = "";
    const script = (request: SeenRequest) =>
      request.path.includes("/manifests/")
        ? respond(200, {
          headers: { "Content-Type": OCI_MANIFEST, "Docker-Content-Digest": wished },
          body,
        })
        : serveImage(request, image);
    await withPulls({ root, script, digest: wished }, async ({ pull, server }) => {
      const before = await treeOf(root);
      for (body of bodies) {
        expect((await failureOf(pull())).code).toBe("CONTENT_DIGEST_MISMATCH");
        expect(await treeOf(root)).toEqual(before);
      }
      expect(server.requests.filter(({ path }) => path.includes("/blobs/"))).toEqual([]);
      body = image.manifest.bytes;
      expect(await isRight(await pull(), image)).toBe(true);
      expect(layoutProblems(root)).toEqual([]);
    });
  });

  it("HM02 by digest, of what it says, which is no JSON: MANIFEST_INVALID, S0", async () => {
    const { bytes, descriptor } = blobOf(new Uint8Array(randomBytes(100)), { mediaType: OCI_MANIFEST });
    const root = join(directory(), "root");
    const script = () => respond(200, { headers: { "Content-Type": OCI_MANIFEST }, body: bytes });
    await withPulls({ root, script, digest: descriptor.digest }, async ({ pull }) => {
      const before = await treeOf(root);
      expect((await failureOf(pull())).code).toBe("MANIFEST_INVALID");
      expect(await treeOf(root)).toEqual(before);
    });
  });

  it("RP10 whose layer is announced with another size: S0", async () => {
    const image = newImage();
    await pullTwice(
      image,
      () => [{ send: head(200, { "Content-Length": "299999" }) }, { hang: true }],
      { code: "CONTENT_SIZE_MISMATCH", partials: 0 },
    );
  });

  it("RP11 whose layer always ends early: S1, and what came is not fetched again", async () => {
    const image = newImage();
    const ranges = await pullTwice(
      image,
      (request, count) => cutAfter(serveRange(request, rootfsOf(image)), count === 0 ? 200_000 : 0, "close"),
      // The other layers are complete, and wait to become visible together with this one.
      { code: "CONTENT_SIZE_MISMATCH", partials: "any" },
    );
    const rest = "bytes=200000-299999";
    // Once with bytes, twice without, and then the next pull, which may have lost what was not a whole block.
    expect(ranges).toEqual([undefined, rest, rest, expect.stringMatching(/^bytes=[0-9]+-299999$/)]);
    expect(Number(/[0-9]+/.exec(ranges[3] ?? "")?.[0])).toBeGreaterThan(200_000 - 64 * 1024);
  });

  it("RP12 whose layer is shorter than its descriptor, in good order: S1", async () => {
    const image = newImage();
    const body = rootfsOf(image).subarray(0, 200_000);
    await pullTwice(
      image,
      (request, count) => count === 0 ? respondChunked(200, { body }) : serveRange(request, body),
      { code: "CONTENT_SIZE_MISMATCH", partials: "any" },
    );
  });

  it("RP13 HM08 whose layer is longer than its descriptor: S0", async () => {
    const image = newImage();
    const body = new Uint8Array([...rootfsOf(image), 1]);
    await pullTwice(image, () => respondChunked(200, { body }), {
      code: "CONTENT_SIZE_MISMATCH",
      partials: 0,
    });
  });

  it("RP14 with one wrong byte: fetched once more in full, then refused, S0", async () => {
    const image = newImage();
    const wrong = Uint8Array.from(rootfsOf(image));
    wrong[150_000] = (wrong[150_000] ?? 0) ^ 1;
    let asked = 0;
    await pullTwice(image, (request) => {
      asked += 1;
      return serveRange(request, wrong);
    }, { code: "CONTENT_DIGEST_MISMATCH", partials: 0 });
    expect(asked).toBe(2);
  });

  it.each([3_000, 150_000, 297_000, 299_999])(
    "RP15 whose layer is reset after %i of its 300,000 bytes, once: not a byte comes again, S2",
    async (cutAt) => {
      const image = newImage();
      const root = join(directory(), "root");
      let count = 0;
      const script = (request: SeenRequest): Answer => {
        const answer = serveImage(request, image);
        if (!isFor(request, image) || count++ > 0) return answer;
        // A reset takes with it what the client has not read yet.
        return [...cutAfter(answer, cutAt, "reset").slice(0, -1), { waitMs: 500 }, { reset: true }];
      };
      await withPulls({ root, script }, async ({ pull, server }) => {
        expect(await isRight(await pull(), image)).toBe(true);
        expect(layoutProblems(root)).toEqual([]);
        expect(rangesOf(server.requests, image)).toEqual([undefined, `bytes=${cutAt}-299999`]);
        const blobs = [image.manifest, image.config, ...Object.values(image.layers)];
        const bodyBytes = blobs.reduce((sum, { bytes }) => sum + bytes.length, 0);
        expect(server.sentBytes).toBeLessThan(bodyBytes + 300 * server.requests.length);
      });
    },
  );

  it("RP16 whose layer goes silent for good: S1", async () => {
    const image = newImage();
    await pullTwice(
      image,
      (request, count) => cutAfter(serveRange(request, rootfsOf(image)), count === 0 ? 200_000 : 0, "hang"),
      { code: "REGISTRY_TIMEOUT", partials: 1 },
    );
  });

  it("RP17 whose layer only trickles: REGISTRY_TIMEOUT after three tries, S1", async () => {
    const image = newImage();
    let asked = 0;
    await pullTwice(image, (request, count) => {
      asked += 1;
      const [first = { close: true }, second] = serveRange(request, rootfsOf(image));
      const body = second !== undefined && "send" in second && typeof second.send !== "string"
        ? second.send
        : new Uint8Array();
      const start = count === 0 ? 200_000 : 0;
      const drops = Array.from({ length: 200 }, (_none, i) => [
        { waitMs: 20 },
        { send: body.subarray(start + i, start + i + 1) },
      ]).flat();
      return [first, { send: body.subarray(0, start) }, ...drops];
    }, { code: "REGISTRY_TIMEOUT", partials: 1 });
    expect(asked).toBe(3);
  });

  it.each(["ETag", "Last-Modified"])(
    "RP24 whose layer has another %s when it is resumed: fetched from its start, S2",
    async (name) => {
      const image = newImage();
      const root = join(directory(), "root");
      const other = randomBlob(300_000).bytes;
      let count = 0;
      const script = (request: SeenRequest) => {
        if (!isFor(request, image)) return serveImage(request, image);
        const [stale, right] = [other, rootfsOf(image)];
        const tag = (answer: Answer, value: string) =>
          answer.map((step) =>
            "send" in step && typeof step.send === "string"
              ? { send: step.send.replace("\r\n", `\r\n${name}: ${value}\r\n`) }
              : step
          );
        // The first answer was of something else.
        return count++ === 0
          ? tag(cutAfter(serveRange(request, stale), 100_000, "close"), '"one"')
          : tag(serveRange(request, right), '"two"');
      };
      await withPulls({ root, script }, async ({ pull, server }) => {
        expect(await isRight(await pull(), image)).toBe(true);
        expect(rangesOf(server.requests, image)).toEqual([undefined, "bytes=100000-299999", undefined]);
        expect(layoutProblems(root)).toEqual([]);
      });
    },
  );

  it("RP24 a server whose tags change while its content does not costs one more start, no more", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    const script = (request: SeenRequest, count: number) =>
      isFor(request, image)
        ? cutAfter(serveRange(request, rootfsOf(image)), 60_000, "reset").map((step) =>
          "send" in step && typeof step.send === "string"
            ? { send: step.send.replace("\r\n", `\r\nETag: "${count}"\r\n`) }
            : step
        )
        : serveImage(request, image);
    await withPulls({ root, script }, async ({ pull, server }) => {
      expect(await isRight(await pull(), image)).toBe(true);
      expect(layoutProblems(root)).toEqual([]);
      const resumed = [60_000, 120_000, 180_000, 240_000].map((first) => `bytes=${first}-299999`);
      expect(rangesOf(server.requests, image)).toEqual([undefined, resumed[0], undefined, ...resumed]);
    });
  });

  it("RP38 from a server that speaks HTTP/1.0 and closes after each answer: S2", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    const script = (request: SeenRequest): Answer => [
      ...serveImage(request, image).map((step) =>
        "send" in step && typeof step.send === "string"
          ? { send: step.send.replace("HTTP/1.1", "HTTP/1.0") }
          : step
      ),
      { close: true },
    ];
    await withPulls({ root, script }, async ({ pull, server }) => {
      expect(await isRight(await pull(), image)).toBe(true);
      expect(server.connections).toBe(server.requests.length);
    });
  });

  it("RP49 from a server that has nothing but 503: no more than 3 requests for each thing", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    const script = (request: SeenRequest) =>
      request.path.includes("/blobs/") ? respond(503) : serveImage(request, image);
    await withPulls({ root, script }, async ({ pull, server }) => {
      const before = await treeOf(root);
      expect((await failureOf(pull())).code).toBe("REGISTRY_UNAVAILABLE");
      const things = new Set(server.requests.map(({ path }) => path)).size;
      expect(server.requests.length).toBeLessThanOrEqual(things * 3);
      expect(await treeOf(root)).toEqual(before);
    });
  });

  it("RP50 whose registry takes its time with each of 40 layers: REGISTRY_TIMEOUT, S1, the next goes on", async () => {
    const image = newImage();
    const more = Array.from({ length: 37 }, () => randomBlob(100_000));
    const all = [...Object.values(image.layers), ...more];
    const root = join(directory(), "root");
    let isSlow = true;
    const script = (request: SeenRequest): Answer => {
      const blob = all.find(({ descriptor }) => request.path.endsWith(descriptor.digest));
      if (blob === undefined) return serveImage(request, image);
      const [first = { close: true }, ...rest] = serveRange(request, blob.bytes);
      return !isSlow ? [first, ...rest] : [
        first,
        ...rest.flatMap((step) =>
          "send" in step && typeof step.send !== "string" ? slowly(step.send, 10_000) : [step]
        ),
      ];
    };
    await using server = await startFaultServer(script);
    const pull = async () => {
      await using registries = new Registries({ limits: { ...QUICK, deadlineMs: 2_000 } });
      const context = await openAgent(root, { registries });
      const reference = { transport: "docker", host: server.host, repository: "os/demo", tag: "1" } as const;
      const wish = { architecture: "amd64", variant: "virtualization", pull: "always", reference } as const;
      return await withDeadline<PulledImage, OperationOptions>(
        context,
        {},
        (timed) =>
          withSource(context, wish, async (source) => {
            const resolved = await resolveImage(context, wish, { source, signal: timed.signal });
            // As if every layer had a role; there are not 40 roles.
            const layers = all.map(({ descriptor }) => ({ role: "rootfs", descriptor }) as const);
            return await pullResolved(context, { ...resolved, layers }, timed);
          }),
      );
    };
    const failure = await failureOf(pull());
    expect([failure.code, failure.retryable, failure.details.limit]).toEqual([
      "REGISTRY_TIMEOUT",
      true,
      "deadline",
    ]);
    expect(layoutProblems(root, { partials: "any" })).toEqual([]);
    const left = await readdir(join(root, "images/blobs/sha256"));
    const partials = (await readdir(join(root, "ingest"))).filter((name) => name.endsWith(".partial"));
    // Some are complete, some have begun, and most were not asked for.
    expect(left.length).toBeGreaterThan(0);
    expect(partials.length).toBeGreaterThan(0);
    expect(left.length + partials.length).toBeLessThan(40);
    isSlow = false;
    const before = server.requests.length;
    const { layers } = await pull();
    for (const [i, { path }] of layers.entries()) {
      expect((await readFile(path)).equals(all[i]?.bytes ?? new Uint8Array())).toBe(true);
    }
    const asked = server.requests.slice(before).filter(({ path }) => path.includes("/blobs/"));
    expect(asked.filter(({ path }) => left.some((name) => path.endsWith(name)))).toEqual([]);
    expect(asked.filter(({ headers }) => /^bytes=[1-9]/.test(headers.range ?? "")).length).toBeGreaterThan(0);
    expect(layoutProblems(root)).toEqual([]);
  });

  it("HM20 whose tag moves meanwhile: what it stood for first is what is pulled and named", async () => {
    const [first, second] = [newImage(), newImage()];
    const root = join(directory(), "root");
    const byDigest = (request: SeenRequest) =>
      [first, second].find((image) =>
        request.path.endsWith(image.manifest.descriptor.digest) ||
        [image.config, ...Object.values(image.layers)].some(({ descriptor }) =>
          request.path.endsWith(descriptor.digest)
        )
      );
    let tagged = 0;
    const script = (request: SeenRequest) => {
      const isTag = request.path.endsWith("/manifests/1");
      return serveImage(request, isTag ? (tagged++ === 0 ? first : second) : byDigest(request) ?? first);
    };
    await withPulls({ root, script }, async ({ pull }) => {
      const pulled = await pull();
      expect(await isRight(pulled, first)).toBe(true);
      expect(pulled.image.root.digest).toBe(first.manifest.descriptor.digest);
      expect(tagged).toBe(1);
      expect(layoutProblems(root)).toEqual([]);
    });
  });

  it("RP33 tells people that it waits, for what and how long", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    let count = 0;
    const script = (request: SeenRequest) =>
      isFor(request, image) && count++ === 0
        ? respond(429, { headers: { "Retry-After": "1" } })
        : serveImage(request, image);
    await withPulls({ root, script }, async ({ pull }) => {
      const seen: Progress[] = [];
      await pull({ onProgress: (progress) => seen.push(progress) });
      const waits = seen.flatMap(({ layers }) =>
        layers.flatMap((layer) => layer.wait ? [[layer.role, layer.wait]] : [])
      );
      expect(waits).toContainEqual(["rootfs", { code: "REGISTRY_RATE_LIMITED", delayMs: 1000 }]);
      const last = seen.at(-1);
      expect(last?.layers.every(({ wait }) => wait === undefined)).toBe(true);
      expect(last?.doneBytes).toBe(last?.totalBytes);
    });
  });
});
