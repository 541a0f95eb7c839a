import { appendFile, chmod, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { listImages, requireCached, tagImage } from "../../../src/agent/images.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import { parseReference } from "../../../src/image/reference.ts";
import { OCI_INDEX } from "../../../src/image/media_type.ts";
import { hashBytes } from "../../../src/image/verification.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { randomManifest } from "../../support/blobs.ts";
import { rejectionOf } from "../../support/failures.ts";
import {
  type OsImage,
  osImage,
  publishLayout,
  randomInitramfs,
  randomKernel,
} from "../../support/os_image.ts";
import { randomWord } from "../../support/random_word.ts";
import { entryOf, ShapeBuilder, writeShape } from "../../support/shape_builder.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const VIRTUAL = { architecture: "amd64", variant: "virtualization", pull: "missing" } as const;

function bytesOf({ manifest, config, layers }: OsImage): number {
  return [manifest, config, ...Object.values(layers)].reduce((sum, { bytes }) => sum + bytes.length, 0);
}

describe("listImages", () => {
  it("lists nothing in an empty cache", async () => {
    expect(await listImages(await openAgent(temporary()))).toEqual([]);
  });

  it("says of each platform whether all of it is here, and counts the bytes that are", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const shared = randomKernel();
    const virtual = osImage({ kernel: shared, initramfs: randomInitramfs() }, { variant: "virtualization" });
    const metal = osImage({ kernel: shared }, { variant: "metal" });
    const arm = osImage({ rootfs: randomKernel() }, { architecture: "aarch64" });
    const { name, reference, index } = await publishLayout(join(temporary(), "layout"), [
      virtual,
      metal,
      arm,
    ]);
    await pullImage(context, { reference, ...VIRTUAL });
    const platforms = (isMetalComplete: boolean) => [
      {
        architecture: "amd64",
        variant: "virtualization",
        digest: virtual.manifest.descriptor.digest,
        isComplete: true,
      },
      {
        architecture: "amd64",
        variant: "metal",
        digest: metal.manifest.descriptor.digest,
        isComplete: isMetalComplete,
      },
      { architecture: "arm64", variant: null, digest: arm.manifest.descriptor.digest, isComplete: false },
    ];
    const held = { reference: name, digest: index.descriptor.digest };
    const sizeBytes = index.bytes.length + bytesOf(virtual);
    expect(await listImages(context)).toEqual([{ ...held, platforms: platforms(false), sizeBytes }]);

    await pullImage(context, { reference, ...VIRTUAL, variant: "metal" });
    expect(await listImages(context)).toEqual([
      { ...held, platforms: platforms(true), sizeBytes: sizeBytes + bytesOf(metal) - shared.length },
    ]);
  });

  it("lists what an index of indexes offers, as far as they are here", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const builder = new ShapeBuilder();
    const manifest = builder.manifest([
      builder.layer("application/vnd.ironcore.image.kernel", randomKernel()),
    ]);
    const inner = builder.index([
      entryOf(manifest, {
        platform: { architecture: "amd64", os: "linux" },
        annotations: { variant: "virtualization" },
      }),
    ]);
    const unread = entryOf(randomManifest(), { mediaType: OCI_INDEX });
    const built = builder.finish(builder.index([entryOf(inner), unread]), [], { layers: [] });
    const directory = join(temporary(), "layout");
    await writeShape(directory, built);
    await pullImage(context, { reference: { transport: "oci", directory, tag: "1" }, ...VIRTUAL });
    expect((await listImages(context)).map(({ platforms }) => platforms)).toEqual([[{
      architecture: "amd64",
      variant: "virtualization",
      digest: manifest.descriptor.digest,
      isComplete: true,
    }]]);
  });

  it("asks of an image only what a pull brings: no layer without a role, whatever its digest", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const builder = new ShapeBuilder();
    const manifest = builder.manifest([
      builder.layer("application/vnd.ironcore.image.kernel", randomKernel()),
      builder.layer("application/x-log"),
      { mediaType: "application/x-log", digest: "blake3:00ff", size: 7 },
    ]);
    const directory = join(temporary(), "layout");
    await writeShape(directory, builder.finish(manifest, [], { layers: [] }));
    await pullImage(context, { reference: { transport: "oci", directory, tag: "1" }, ...VIRTUAL });
    expect((await listImages(context)).flatMap(({ platforms }) => platforms)).toMatchObject([{
      isComplete: true,
    }]);
  });

  it("lists each image once, also when their indexes are too large to be looked at together", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const names: string[] = [];
    for (const folder of ["a", "b", "c", "d", "e"]) {
      const image = osImage({ kernel: randomKernel() });
      const annotations = { padding: "x".repeat(1_500_000) };
      const layout = await publishLayout(join(temporary(), folder), [image], { annotations });
      await pullImage(context, { reference: layout.reference, ...VIRTUAL });
      names.push(layout.name);
    }
    const images = await listImages(context);
    expect(images.map(({ reference }) => reference)).toEqual(names);
    expect(images.every(({ platforms }) => platforms[0]?.isComplete)).toBe(true);
  });

  it("lists the others beside an image whose index is gone, damaged, or none that is read any more", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const names: string[] = [];
    const roots: Descriptor[] = [];
    for (const folder of ["a-gone", "b-damaged", "c-sound"]) {
      const layout = await publishLayout(join(temporary(), folder), [osImage({ kernel: randomKernel() })]);
      await pullImage(context, { reference: layout.reference, ...VIRTUAL });
      names.push(layout.name);
      roots.push(layout.index.descriptor);
    }
    const [gone, damaged] = roots.map(({ digest }) => context.content.blobPath(digest));
    if (!gone || !damaged) throw new Error("there are three");
    await rm(gone);
    await chmod(damaged, 0o600);
    await appendFile(damaged, "x");
    // As if a rule had become stricter since: it has its own digest.
    const bytes = new TextEncoder().encode(`{"manifests":[],"__proto__":1}`);
    const digest = hashBytes(bytes);
    await writeFile(context.content.blobPath(digest), bytes, { mode: 0o400 });
    const strict = { mediaType: OCI_INDEX, digest, sizeBytes: bytes.length, annotations: {} };
    await context.content.setReference("127.0.0.1:1/os/strict:1", strict);
    const images = await listImages(context);
    expect(images.map(({ reference, platforms }) => [reference, platforms.length])).toEqual([
      ["127.0.0.1:1/os/strict:1", 0],
      [names[0], 0],
      [names[1], 0],
      [names[2], 1],
    ]);
    expect(images[1]?.sizeBytes).toBe(0);
    expect(images[3]?.platforms[0]?.isComplete).toBe(true);
  });

  it("lists by name, and a platform that lost a layer as incomplete", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const image = osImage({ kernel: randomKernel() });
    const { name, reference } = await publishLayout(join(temporary(), "layout"), [image]);
    await pullImage(context, { reference, ...VIRTUAL });
    for (const tag of ["b", "a"]) {
      await tagImage(context, reference, parseReference(`127.0.0.1:1/os/x:${tag}`));
    }
    expect((await listImages(context)).map((each) => each.reference)).toEqual([
      "127.0.0.1:1/os/x:a",
      "127.0.0.1:1/os/x:b",
      name,
    ]);
    const kernel = image.layers.kernel?.descriptor.digest;
    if (kernel) await rm(context.content.blobPath(kernel));
    expect((await listImages(context)).flatMap((each) => each.platforms.map((one) => one.isComplete)))
      .toEqual([
        false,
        false,
        false,
      ]);
  });
});

describe("tagImage", () => {
  it("gives a cached image one more name, by name or by digest, and moves a name that is taken", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const [one, two] = await Promise.all(
      ["one", "two"].map((folder) =>
        publishLayout(join(temporary(), folder), [osImage({ kernel: randomKernel() })])
      ),
    );
    if (!one || !two) throw new Error("two images were published");
    for (const { reference } of [one, two]) await pullImage(context, { reference, ...VIRTUAL });
    const name = `127.0.0.1:5000/os/${randomWord()}:1`;
    const target = parseReference(name);
    expect(await tagImage(context, one.reference, target)).toEqual({
      reference: name,
      digest: one.index.descriptor.digest,
    });
    const byDigest = parseReference(`any.example/os/x@${two.index.descriptor.digest}`);
    expect(await tagImage(context, byDigest, target)).toEqual({
      reference: name,
      digest: two.index.descriptor.digest,
    });
    expect((await requireCached(context, target)).digest).toBe(two.index.descriptor.digest);
    expect((await requireCached(context, one.reference)).digest).toBe(one.index.descriptor.digest);
  });

  it("refuses what is not in the cache, and a name that is a layout or a digest", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const absent = parseReference(`127.0.0.1:1/os/${randomWord()}:1`);
    expect(await rejectionOf(tagImage(context, absent, absent))).toMatchObject({ code: "IMAGE_NOT_FOUND" });
    const { reference, index } = await publishLayout(join(temporary(), "layout"), [
      osImage({ kernel: randomKernel() }),
    ]);
    await pullImage(context, { reference, ...VIRTUAL });
    for (const name of [`127.0.0.1:1/os/x@${index.descriptor.digest}`, "oci:/tmp/x:1"]) {
      expect(await rejectionOf(tagImage(context, reference, parseReference(name)))).toMatchObject({
        code: "REQUEST_INVALID",
        message: expect.stringContaining("must be a name like HOST/REPOSITORY:TAG"),
      });
    }
    expect((await listImages(context)).length).toBe(1);
  });
});
