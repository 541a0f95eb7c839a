/** Whole pulls from a registry that misbehaves: the code, and what is in the cache afterwards, byte by byte. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Progress } from "../../src/agent/progress.ts";
import { randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  head,
  respond,
  respondChunked,
  type SeenRequest,
  serveRange,
} from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { isRight, serveImage, treeOf, withPulls } from "../support/pull_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const newImage = (rootfs = randomBlob(300_000).bytes): OsImage =>
  osImage({ kernel: randomKernel(), initramfs: randomInitramfs(), rootfs });

const isFor = (request: SeenRequest, image: OsImage) =>
  request.path.endsWith(image.layers.rootfs?.descriptor.digest ?? "none");
const rootfsOf = (image: OsImage) => image.layers.rootfs?.bytes ?? new Uint8Array();

/** Pulls while the rootfs is answered by `spoil`, then once more from a registry that is well. */
async function pullTwice(
  image: OsImage,
  spoil: (request: SeenRequest, count: number) => Answer,
  expected: { readonly code: string; readonly partials: 0 | 1 | "any" },
): Promise<void> {
  const root = join(directory(), "root");
  let isWell = false;
  let count = 0;
  await withPulls({
    root,
    script: (request) =>
      !isWell && isFor(request, image) ? spoil(request, count++) : serveImage(request, image),
    limits: { rateWindowMs: 100, rateWindowBytes: 1000 },
  }, async ({ pull }) => {
    const before = await treeOf(root);
    const failure = await failureOf(pull());
    expect(failure.code).toBe(expected.code);
    if (expected.partials === 0 && !failure.retryable) expect(await treeOf(root)).toEqual(before);
    expect(layoutProblems(root, { partials: expected.partials })).toEqual([]);
    isWell = true;
    expect(await isRight(await pull(), image)).toBe(true);
    expect(layoutProblems(root)).toEqual([]);
  });
}

describe("a pull, and the next one", () => {
  it("RP07 HM02 whose manifest is not what its digest says: S0", async () => {
    const image = newImage();
    const root = join(directory(), "root");
    await withPulls({ root, script: () => respond(200, { body: "{}" }) }, async ({ pull }) => {
      const before = await treeOf(root);
      expect((await failureOf(pull())).code).toBe("MEDIA_TYPE_UNSUPPORTED");
      expect(await treeOf(root)).toEqual(before);
    });
    await withPulls({ root, script: (request) => serveImage(request, image) }, async ({ pull }) => {
      expect(await isRight(await pull(), image)).toBe(true);
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
    await pullTwice(
      image,
      (request, count) => cutAfter(serveRange(request, rootfsOf(image)), count === 0 ? 200_000 : 0, "close"),
      // The other layers are complete, and wait to become visible together with this one.
      { code: "CONTENT_SIZE_MISMATCH", partials: "any" },
    );
  });

  it("RP12 whose layer is shorter than its descriptor, in good order: S1", async () => {
    const image = newImage();
    const body = rootfsOf(image).subarray(0, 200_000);
    await pullTwice(
      image,
      (request, count) => count === 0 ? respondChunked(200, { body }) : serveRange(request, body),
      { code: "CONTENT_SIZE_MISMATCH", partials: 0 },
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

  it.each([0.01, 0.5, 0.99])("RP15 whose layer is reset after the share %f, once: S2", async (share) => {
    const image = newImage();
    const root = join(directory(), "root");
    let count = 0;
    const script = (request: SeenRequest) => {
      const answer = serveImage(request, image);
      if (!isFor(request, image) || count++ > 0) return answer;
      return cutAfter(answer, Math.round(share * 300_000), "reset");
    };
    await withPulls({ root, script }, async ({ pull, server }) => {
      const pulled = await pull();
      expect(await isRight(pulled, image)).toBe(true);
      expect(layoutProblems(root)).toEqual([]);
      // Not a byte of what was received came again.
      const { transferredBytes } = pulled;
      expect(transferredBytes).toBeLessThanOrEqual(server.sentBytes);
      expect(server.requests.filter((request) => isFor(request, image))).toHaveLength(2);
    });
  });

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
          ? tag(cutAfter(serveRange(request, stale), 100_000, "reset"), '"one"')
          : tag(serveRange(request, right), '"two"');
      };
      await withPulls({ root, script }, async ({ pull, server }) => {
        expect(await isRight(await pull(), image)).toBe(true);
        const ranges = server.requests.filter((request) => isFor(request, image)).map((each) =>
          each.headers.range
        );
        expect(ranges).toEqual([undefined, "bytes=100000-299999", undefined]);
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
    await withPulls({ root, script }, async ({ pull }) => {
      expect(await isRight(await pull(), image)).toBe(true);
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
    const kernel = randomKernel();
    const image = osImage({ kernel, initramfs: randomInitramfs(), rootfs: randomBlob(3_000_000).bytes });
    const root = join(directory(), "root");
    let isSlow = true;
    const script = (request: SeenRequest): Answer => {
      const answer = serveImage(request, image);
      if (!isSlow || !isFor(request, image)) return answer;
      const [first = { close: true }, second] = answer;
      const body = second !== undefined && "send" in second && typeof second.send !== "string"
        ? second.send
        : new Uint8Array();
      return [
        first,
        ...Array.from({ length: 300 }, (_none, i) => [
          { send: body.subarray(i * 10_000, (i + 1) * 10_000) },
          { waitMs: 100 },
        ]).flat(),
      ];
    };
    await withPulls({ root, script, limits: { deadlineMs: 2_000 } }, async ({ pull, server }) => {
      const failure = await failureOf(pull());
      expect([failure.code, failure.retryable, failure.details.limit]).toEqual([
        "REGISTRY_TIMEOUT",
        true,
        "deadline",
      ]);
      expect(layoutProblems(root, { partials: 1 })).toEqual([]);
      expect((await readdir(join(root, "ingest"))).length).toBeGreaterThan(0);
      isSlow = false;
      const before = server.requests.length;
      expect(await isRight(await pull(), image)).toBe(true);
      const resumed = server.requests.slice(before).find((request) => isFor(request, image));
      expect(resumed?.headers.range).toMatch(/^bytes=[1-9][0-9]*-2999999$/);
    });
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
