import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { listImages } from "../../../src/agent/images.ts";
import type { Progress } from "../../../src/agent/progress.ts";
import { pullImage, pullResolved } from "../../../src/agent/pull_image.ts";
import { type ResolvedImage, resolveImage } from "../../../src/agent/resolve_image.ts";
import type { Role } from "../../../src/boot/prepared_boot.ts";
import { ContentStore } from "../../../src/content/content_store.ts";
import { LayoutSource } from "../../../src/content/layout_source.ts";
import { ShimError } from "../../../src/errors.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import type { FetchOptions, ImageSource } from "../../../src/image/image_source.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import {
  type OsImage,
  osImage,
  publishLayout,
  randomInitramfs,
  randomKernel,
} from "../../support/os_image.ts";
import { streamOf } from "../../support/streams.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const WISH = { architecture: "amd64", variant: "virtualization", pull: "missing" } as const;
const ROLES = ["rootfs", "kernel", "initramfs"] as const;
type OpenBlob = ImageSource["openBlob"];

type Rig = {
  readonly context: AgentContext;
  readonly published: OsImage;
  readonly image: ResolvedImage;
  readonly descriptorOf: (role: Role) => Descriptor;
  readonly bytesOf: (role: Role) => Uint8Array;
  /** The roles whose layers the cache has. */
  readonly visible: () => Promise<readonly Role[]>;
};

function publishedReference() {
  return { transport: "oci", directory: join(temporary(), "layout"), tag: "1" } as const;
}

async function listedManifests(context: AgentContext): Promise<string[]> {
  return (await listImages(context)).flatMap(({ platforms }) => platforms.map(({ digest }) => digest));
}

/** A published image of three layers, resolved; none of it is in the cache. */
async function withImage(): Promise<Rig> {
  const context = await openAgent(join(temporary(), "root"));
  const published = osImage({
    rootfs: randomInitramfs(),
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
  });
  const { reference } = await publishLayout(join(temporary(), "layout"), [published]);
  const source = await LayoutSource.open(reference.directory);
  const image = await resolveImage(context, { ...WISH, reference }, {
    source: () => Promise.resolve(source),
  });
  const layerOf = (role: Role) => {
    const layer = published.layers[role];
    if (!layer) throw new Error(`the image has no ${role}`);
    return layer;
  };
  return {
    context,
    published,
    image,
    descriptorOf: (role) => layerOf(role).descriptor,
    bytesOf: (role) => layerOf(role).bytes,
    visible: async () => {
      const held: Role[] = [];
      for (const role of ROLES) if (await context.content.hasBlob(layerOf(role).descriptor)) held.push(role);
      return held;
    },
  };
}

/** The image, with a source that gives layers by this instead. */
function openingBy({ image }: Rig, openBlob: (open: OpenBlob) => OpenBlob): ResolvedImage {
  const { source } = image;
  if (!source) throw new Error("the image was resolved with a source");
  return {
    ...image,
    source: async () => {
      const real = await source();
      const bound = openBlob((descriptor, options) => real.openBlob(descriptor, options));
      return new Proxy(real, {
        get: (target, key) => key === "openBlob" ? bound : Reflect.get(target, key),
      });
    },
  };
}

/** Gives `role`'s layer by `open`, the others as they are. */
function spoiling(
  rig: Rig,
  role: Role,
  open: (options: FetchOptions) => ReturnType<OpenBlob>,
): ResolvedImage {
  const { digest } = rig.descriptorOf(role);
  return openingBy(
    rig,
    (real) => (descriptor, options = {}) =>
      descriptor.digest === digest ? open(options) : real(descriptor, options),
  );
}

/** Resolves when every layer but one is complete on disk and waits to become visible. */
async function othersArrived({ context }: Rig): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let arrived = 0;
  const real = ContentStore.prototype.withMissing.bind(context.content);
  vi.spyOn(context.content, "withMissing").mockImplementation((descriptors, watch, body) =>
    real(descriptors, watch, (locked) =>
      body({
        ...locked,
        ingest: (descriptor, open, options = {}) =>
          locked.ingest(descriptor, open, {
            ...options,
            beforeCommit: async () => {
              arrived += 1;
              if (arrived === ROLES.length - 1) resolve();
              await options.beforeCommit?.();
            },
          }),
      }))
  );
  await promise;
}

describe("pullImage", () => {
  it("makes an image complete, then transfers nothing and needs no source", async () => {
    const rig = await withImage();
    const { context, published } = rig;
    const reference = publishedReference();
    const progress: Progress[] = [];
    const first = await pullImage(context, { ...WISH, reference }, {
      onProgress: (each) => progress.push(each),
    });
    const layerBytes = ROLES.reduce((sum, role) => sum + rig.bytesOf(role).length, 0);
    const documents = first.image.documents.reduce((sum, { bytes }) => sum + bytes.length, 0);
    expect(first.transferredBytes).toBe(layerBytes + documents);
    expect(first.layers.map(({ role, path }) => [role, path])).toEqual(
      ROLES.map((role) => [role, context.content.blobPath(rig.descriptorOf(role).digest)]),
    );
    expect(progress[0]).toEqual({ phase: "resolving", doneBytes: 0, totalBytes: 0, layers: [] });
    expect(progress.at(-1)).toEqual({
      phase: "pulling",
      doneBytes: layerBytes,
      totalBytes: layerBytes,
      layers: ROLES.map((role) => ({
        role,
        digest: rig.descriptorOf(role).digest,
        doneBytes: rig.bytesOf(role).length,
        totalBytes: rig.bytesOf(role).length,
      })),
    });
    expect(layoutProblems(join(temporary(), "root"))).toEqual([]);

    await rm(reference.directory, { recursive: true });
    for (const pull of ["missing", "never"] as const) {
      const again = await pullImage(context, { ...WISH, reference, pull });
      expect([again.transferredBytes, again.layers]).toEqual([0, first.layers]);
    }
    expect(await listedManifests(context)).toEqual([published.manifest.descriptor.digest]);
  });

  it("asks anew what a tag means under always, and transfers only what is new", async () => {
    const rig = await withImage();
    const { context } = rig;
    const reference = publishedReference();
    await pullImage(context, { ...WISH, reference });
    const kernel = randomKernel();
    const next = osImage({ rootfs: rig.bytesOf("rootfs"), kernel });
    await publishLayout(reference.directory, [next]);
    const missing = await pullImage(context, { ...WISH, reference });
    expect(missing.image.chosen.descriptor.digest).toBe(rig.published.manifest.descriptor.digest);
    const always = await pullImage(context, { ...WISH, reference, pull: "always" });
    expect(always.image.chosen.descriptor.digest).toBe(next.manifest.descriptor.digest);
    const documents = always.image.documents.reduce((sum, { bytes }) => sum + bytes.length, 0);
    expect(always.transferredBytes).toBe(kernel.length + documents);
  });

  it("under never names what is missing of an image whose layer is gone", async () => {
    const rig = await withImage();
    const { context } = rig;
    const reference = publishedReference();
    await pullImage(context, { ...WISH, reference });
    const { digest } = rig.descriptorOf("kernel");
    await rm(context.content.blobPath(digest));
    const failure = await failureOf(pullImage(context, { ...WISH, reference, pull: "never" }));
    expect([failure.code, failure.details.missing]).toEqual(["IMAGE_NOT_FOUND", [digest]]);
    await pullImage(context, { ...WISH, reference });
    expect(await rig.visible()).toEqual(ROLES);
  });

  it("fetches a layer once that two roles share", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const bytes = randomKernel();
    const image = osImage({ kernel: bytes, uki: bytes });
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    const { transferredBytes, image: { documents } } = await pullImage(context, { ...WISH, reference });
    expect(transferredBytes).toBe(
      bytes.length + documents.reduce((sum, document) => sum + document.bytes.length, 0),
    );
  });
});

describe("pullResolved", () => {
  it.each(ROLES)("leaves nothing visible when the %s turns out to be wrong, however late", async (role) => {
    const rig = await withImage();
    const arrived = othersArrived(rig);
    const wrong = new Uint8Array(rig.bytesOf(role).length);
    const image = spoiling(rig, role, async () => {
      await arrived;
      return streamOf(wrong);
    });
    expect(await codeOf(pullResolved(rig.context, image))).toBe("CONTENT_DIGEST_MISMATCH");
    expect(await rig.visible()).toEqual([]);
    expect(await listImages(rig.context)).toEqual([]);
    expect(layoutProblems(join(temporary(), "root"))).toEqual([]);
  });

  it("leaves nothing visible when a layer is wrong before the others are complete", async () => {
    const rig = await withImage();
    const spoilt = spoiling(rig, "kernel", () => Promise.resolve(streamOf(new Uint8Array([1]))));
    expect(await codeOf(pullResolved(rig.context, spoilt))).toBe("CONTENT_SIZE_MISMATCH");
    expect(await rig.visible()).toEqual([]);
  });

  it.each(["REGISTRY_UNAVAILABLE", "REGISTRY_TIMEOUT", "REGISTRY_RATE_LIMITED"] as const)(
    "keeps the layers that were complete when %s interrupts, and fetches only the rest next time",
    async (code) => {
      const rig = await withImage();
      const arrived = othersArrived(rig);
      const image = spoiling(rig, "kernel", async () => {
        await arrived;
        throw new ShimError(code, "Cannot fetch the layer: the test says so");
      });
      expect(await codeOf(pullResolved(rig.context, image))).toBe(code);
      expect(await rig.visible()).toEqual(["rootfs", "initramfs"]);
      expect(await listImages(rig.context)).toEqual([]);
      expect(layoutProblems(join(temporary(), "root"))).toEqual([]);

      const { transferredBytes } = await pullResolved(rig.context, rig.image);
      expect(transferredBytes - rig.image.transferredBytes).toBe(rig.bytesOf("kernel").length);
      expect(await rig.visible()).toEqual(ROLES);
    },
  );

  it("keeps the layers that were complete when the caller goes", async () => {
    const rig = await withImage();
    const arrived = othersArrived(rig);
    const abort = new AbortController();
    // It hangs until it is cancelled, as a registry would that has gone silent.
    const image = spoiling(rig, "initramfs", async () => {
      await arrived;
      abort.abort("enough");
      return new ReadableStream<Uint8Array>({ pull: () => new Promise(() => {}) });
    });
    expect(await codeOf(pullResolved(rig.context, image, { signal: abort.signal }))).toBe("CANCELLED");
    expect(await rig.visible()).toEqual(["rootfs", "kernel"]);
    expect(layoutProblems(join(temporary(), "root"))).toEqual([]);
  });

  it("ends the other transfers when one layer fails for good", async () => {
    const rig = await withImage();
    const cancelled: unknown[] = [];
    // The failing layer waits for them: a transfer that has not begun has nothing to end.
    const opened = Promise.withResolvers<void>();
    let count = 0;
    const hanging = () => {
      if (++count === 2) opened.resolve();
      return new ReadableStream<Uint8Array>({
        pull: () => new Promise(() => {}),
        cancel: () => void cancelled.push("cancelled"),
      });
    };
    const { digest } = rig.descriptorOf("rootfs");
    const image = openingBy(
      rig,
      () => async (descriptor) => {
        if (descriptor.digest !== digest) return hanging();
        await opened.promise;
        return streamOf(new Uint8Array([1]));
      },
    );
    expect(await codeOf(pullResolved(rig.context, image))).toBe("CONTENT_SIZE_MISMATCH");
    expect(cancelled).toEqual(["cancelled", "cancelled"]);
    expect(await rig.visible()).toEqual([]);
  });

  it.each(ROLES)(
    "CO01 CO05 waits for the %s that another process brings, and fetches only the rest",
    async (role) => {
      const rig = await withImage();
      const other = await ContentStore.open({ rootDirectory: join(temporary(), "root"), groupId: null });
      const bytes = rig.bytesOf(role);
      const seen = Promise.withResolvers<void>();
      let pulling: ReturnType<typeof pullResolved> | undefined;
      await other.withMissing([rig.descriptorOf(role)], {}, async (locked) => {
        const half = bytes.length >> 1;
        await locked.ingest(rig.descriptorOf(role), () => {
          let given = 0;
          return new ReadableStream<Uint8Array>({
            async pull(controller) {
              if (given++ === 0) return controller.enqueue(bytes.subarray(0, half));
              pulling = pullResolved(rig.context, rig.image, {
                onProgress: ({ layers }) => {
                  if (layers.some((layer) => layer.role === role)) seen.resolve();
                },
              });
              await seen.promise;
              controller.enqueue(bytes.subarray(half));
              controller.close();
            },
          }, { highWaterMark: 0 });
        });
      });
      const others = ROLES.filter((each) => each !== role);
      const expected = others.reduce((sum, each) => sum + rig.bytesOf(each).length, 0);
      expect((await pulling)?.transferredBytes).toBe(expected + rig.image.transferredBytes);
      expect(await rig.visible()).toEqual(ROLES);
      expect((await listImages(rig.context)).flatMap((each) => each.platforms.map((one) => one.isComplete)))
        .toEqual([true]);
      expect(layoutProblems(join(temporary(), "root"))).toEqual([]);
    },
  );

  it("lets two pulls of one image pass each other", async () => {
    const rig = await withImage();
    const other = await openAgent(join(temporary(), "root"));
    await Promise.all([pullResolved(rig.context, rig.image), pullResolved(other, rig.image)]);
    expect(await rig.visible()).toEqual(ROLES);
    expect(layoutProblems(join(temporary(), "root"))).toEqual([]);
  });
});
