import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { exportImages } from "../../../src/agent/export_image.ts";
import { listImages, tagImage } from "../../../src/agent/images.ts";
import { importImages } from "../../../src/agent/import_image.ts";
import { prepare } from "../../../src/agent/prepare.ts";
import type { Progress } from "../../../src/agent/progress.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import { type LayoutLocation, parseReference, type Reference } from "../../../src/image/reference.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { randomBlob } from "../../support/blobs.ts";
import { codeOf, failureOf, rejectionOf } from "../../support/failures.ts";
import { writeForeignLayout } from "../../support/foreign_layout.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import {
  type OsImage,
  osImage,
  osIndex,
  publishLayout,
  randomInitramfs,
  randomKernel,
} from "../../support/os_image.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const at = (name: string) => join(temporary(), name);
const HERE = { architecture: "amd64", variant: "virtualization", pull: "missing" } as const;
const archive = (): LayoutLocation => ({ transport: "oci-archive", path: at("out.tar") });
const folder = (): LayoutLocation => ({ transport: "oci", path: at("out") });

type Cached = {
  readonly context: AgentContext;
  readonly name: string;
  readonly reference: Reference;
  readonly images: readonly OsImage[];
  readonly index: ReturnType<typeof osIndex>;
};

/** A cache that holds an image of these platforms under a canonical name; only those in `pulled` are complete. */
async function cacheWith(
  platforms: readonly { architecture: string; variant?: string }[] = [{ architecture: "amd64" }],
  pulled: readonly { architecture: "amd64" | "arm64"; variant: "virtualization" | "metal" }[] = [HERE],
): Promise<Cached> {
  const context = await openAgent(at(`root-${randomWord()}`));
  const images = platforms.map((platform) =>
    osImage({ kernel: randomKernel(), initramfs: randomInitramfs() }, {
      commandLine: randomWord(),
      ...platform,
    })
  );
  const { reference: source, index } = await publishLayout(at(`layout-${randomWord()}`), images);
  for (const wish of pulled) await pullImage(context, { reference: source, ...wish, pull: "always" });
  const name = `127.0.0.1:5000/os/${randomWord()}:1`;
  const reference = parseReference(name);
  await tagImage(context, source, reference);
  await context.content.removeReference(`oci:${source.directory}:1`);
  return { context, name, reference, images, index };
}

async function emptyCache(notes: string[] = []): Promise<AgentContext> {
  return await openAgent(at(`root-${randomWord()}`), { notes });
}

const ALL = [
  { architecture: "amd64", variant: "virtualization" },
  { architecture: "arm64", variant: "virtualization" },
  { architecture: "amd64", variant: "metal" },
] as const;

describe.each([["an archive", archive], ["a folder", folder]])(
  "exportImages and importImages by %s",
  (_case, target) => {
    it("carry an image into another cache, where it prepares as here, without any registry", async () => {
      const { context, name, reference, index } = await cacheWith();
      const boot = {
        boot: "auto",
        firmware: "auto",
        cmdline: undefined,
        appends: [],
        machine: null,
      } as const;
      const here = await prepare(context, { reference, ...HERE, ...boot });
      const exported = await exportImages(context, { references: [reference], target: target() });
      expect(exported).toMatchObject({
        target: `${target().transport}:${target().path}`,
        images: [{ reference: name, name, digest: index.descriptor.digest }],
      });
      const there = await emptyCache();
      const imported = await importImages(there, { source: target(), name: undefined });
      expect(imported).toEqual({
        images: [{ reference: name, digest: index.descriptor.digest }],
        transferredBytes: exported.sizeBytes,
      });
      const document = await prepare(there, { reference, ...HERE, ...boot, pull: "never" });
      const moved = JSON.parse(
        JSON.stringify(document).replaceAll(there.rootDirectory, context.rootDirectory),
      );
      expect(moved).toEqual(here);
      expect(await listImages(there)).toEqual(await listImages(context));
      expect(layoutProblems(there.rootDirectory)).toEqual([]);
      expect(await importImages(there, { source: target(), name: undefined })).toEqual({
        ...imported,
        transferredBytes: 0,
      });
    });

    it("tell progress by role, of all bytes", async () => {
      const { context, reference } = await cacheWith();
      const told: Progress[] = [];
      const { sizeBytes } = await exportImages(context, { references: [reference], target: target() }, {
        onProgress: (progress) => told.push(progress),
      });
      await importImages(await emptyCache(), { source: target(), name: undefined }, {
        onProgress: (progress) => told.push(progress),
      });
      for (const phase of ["exporting", "importing"]) {
        const last = told.filter((progress) => progress.phase === phase).at(-1);
        expect(last).toMatchObject({ doneBytes: sizeBytes, totalBytes: sizeBytes });
        expect(last?.layers.map(({ role }) => role)).toEqual(["kernel", "initramfs"]);
      }
    });
  },
);

describe("exportImages", () => {
  it.each(["images", "images/below", "elsewhere"])(
    "refuses a place in the cache, through a link too: %s",
    async (name) => {
      const { context, reference } = await cacheWith();
      await symlink(context.rootDirectory, at("link"));
      const before = await listImages(context);
      const target: LayoutLocation = { transport: "oci", path: at(`link/${name}`) };
      expect(await codeOf(exportImages(context, { references: [reference], target }))).toBe(
        "REQUEST_INVALID",
      );
      expect(await listImages(context)).toEqual(before);
    },
  );

  it("leaves out what is not complete, and keeps the index and with it the digest", async () => {
    const { context, reference, images, index } = await cacheWith(ALL, [ALL[1]]);
    const { images: [exported] } = await exportImages(context, {
      references: [reference],
      target: archive(),
    });
    const arm = images[1]?.manifest.descriptor.digest;
    expect(exported).toMatchObject({
      digest: index.descriptor.digest,
      platforms: [{ architecture: "arm64", variant: "virtualization", digest: arm }],
    });
    const there = await emptyCache();
    await importImages(there, { source: archive(), name: undefined });
    const [listed] = await listImages(there);
    expect(listed?.digest).toBe(index.descriptor.digest);
    expect(listed?.platforms.map(({ isComplete }) => isComplete)).toEqual([false, true, false]);
    expect(await codeOf(pullImage(there, { reference, ...HERE, pull: "never" }))).toBe("IMAGE_NOT_FOUND");
  });

  it.each(
    [
      ["an architecture", { architecture: "amd64" }, [0, 2]],
      ["a variant", { variant: "virtualization" }, [0, 1]],
      ["both", { architecture: "amd64", variant: "metal" }, [2]],
      ["no wish", {}, [0, 1, 2]],
    ] as const,
  )("takes the complete manifests for %s", async (_case, wish, chosen) => {
    const { context, reference, images } = await cacheWith(ALL, ALL);
    const { images: [exported] } = await exportImages(context, {
      references: [reference],
      target: archive(),
      ...wish,
    });
    expect(exported?.platforms.map(({ digest }) => digest)).toEqual(
      chosen.map((each) => images[each]?.manifest.descriptor.digest),
    );
  });

  it("gives the same archive for images in any order, named once or twice", async () => {
    const { context, reference } = await cacheWith();
    const other = parseReference(`127.0.0.1:5000/os/${randomWord()}:2`);
    await tagImage(context, reference, other);
    const one = await exportImages(context, { references: [reference, other], target: archive() });
    const second: LayoutLocation = { transport: "oci-archive", path: at("second.tar") };
    const two = await exportImages(context, { references: [other, reference, other], target: second });
    expect(two.images).toEqual(one.images);
    expect(one.images).toHaveLength(2);
    const there = await emptyCache();
    await importImages(there, { source: second, name: undefined });
    expect((await listImages(there)).map((image) => image.reference).sort()).toEqual(
      [one.images[0]?.reference, one.images[1]?.reference].sort(),
    );
  });

  it("exports a lone manifest", async () => {
    const context = await emptyCache();
    const image = osImage({ kernel: randomKernel() });
    await writeForeignLayout(at("lone"), {
      entries: [{ ...image.manifest, tag: "1" }],
      blobs: [image.config, ...Object.values(image.layers)],
    });
    const reference = parseReference(`oci:${at("lone")}:1`);
    await pullImage(context, { reference, ...HERE });
    const { images: [exported] } = await exportImages(context, { references: [reference], target: folder() });
    expect(exported).toMatchObject({
      digest: image.manifest.descriptor.digest,
      platforms: [{ architecture: null }],
    });
  });

  it("says what cannot be exported, and writes nothing", async () => {
    const { context, reference, images } = await cacheWith(ALL, [ALL[0]]);
    const target = archive();
    const absent = parseReference(`127.0.0.1:5000/os/${randomWord()}:1`);
    const codes = await Promise.all([
      codeOf(exportImages(context, { references: [absent], target })),
      codeOf(exportImages(context, { references: [reference], target, variant: "metal" })),
      codeOf(exportImages(context, {
        references: [reference],
        target: { transport: "oci", path: context.content.layoutDirectory },
      })),
    ]);
    expect(codes).toEqual(["IMAGE_NOT_FOUND", "IMAGE_NOT_FOUND", "REQUEST_INVALID"]);
    const kernel = images[0]?.layers.kernel?.descriptor.digest;
    if (!kernel) throw new Error("the image has a kernel");
    await rm(context.content.blobPath(kernel));
    expect(await codeOf(exportImages(context, { references: [reference], target }))).toBe("IMAGE_NOT_FOUND");
    expect(layoutProblems(context.rootDirectory)).toEqual([]);
  });

  it("says CONTENT_CORRUPT of a cached layer that is not what its name says", async () => {
    const { context, reference, images } = await cacheWith();
    const { descriptor: { digest }, bytes } = images[0]?.layers.kernel ?? randomBlob(1);
    const path = context.content.blobPath(digest);
    await rm(path);
    await writeFile(path, bytes.map((byte) => byte ^ 1), { mode: 0o400 });
    for (const target of [archive(), folder()]) {
      const { code, message } = await failureOf(exportImages(context, { references: [reference], target }));
      expect([code, message.includes(digest)]).toEqual(["CONTENT_CORRUPT", true]);
    }
  });
});

describe("importImages", () => {
  /** A foreign layout of these images, each a lone manifest under a name. */
  async function layoutOf(...names: readonly (string | undefined)[]): Promise<readonly OsImage[]> {
    const images = names.map(() => osImage({ kernel: randomKernel() }));
    await mkdir(folder().path, { recursive: true });
    await writeForeignLayout(folder().path, {
      entries: images.map(({ manifest }, i) => {
        const tag = names[i];
        return { ...manifest, ...(tag === undefined ? {} : { tag }) };
      }),
      blobs: images.flatMap(({ config, layers }) => [config, ...Object.values(layers)]),
    });
    return images;
  }
  const source = folder;
  const name = parseReference("127.0.0.1:5000/os/given:1");

  it("names a layout's only image as it is told, whatever the layout calls it", async () => {
    for (const tag of ["1", undefined, "h.io/os:1"]) {
      const [image] = await layoutOf(tag);
      const context = await emptyCache();
      expect((await importImages(context, { source: source(), name })).images).toEqual([
        { reference: "127.0.0.1:5000/os/given:1", digest: image?.manifest.descriptor.digest },
      ]);
      await rm(folder().path, { recursive: true });
    }
  });

  it.each(
    [
      ["a tag for a name", ["1"], undefined, "REQUEST_INVALID"],
      ["no name", [undefined], undefined, "REQUEST_INVALID"],
      ["one good name and one bad", ["h.io/os:1", "latest"], undefined, "REQUEST_INVALID"],
      ["several images and one name", ["h.io/os:1", "h.io/os:2"], name, "REQUEST_INVALID"],
      ["another layout for a name", ["1"], parseReference("oci:/srv/x:1"), "REQUEST_INVALID"],
      ["one name for two images", ["h.io/os", "h.io/os:latest"], undefined, "MANIFEST_INVALID"],
      ["a name with another digest", [`h.io/os@sha256:${"a".repeat(64)}`], undefined, "MANIFEST_INVALID"],
      ["no image", [], undefined, "IMAGE_NOT_FOUND"],
    ] as const,
  )("refuses %s before anything is stored", async (_case, tags, given, code) => {
    await layoutOf(...tags);
    const context = await emptyCache();
    expect(await codeOf(importImages(context, { source: source(), name: given }))).toBe(code);
    expect(await listImages(context)).toEqual([]);
  });

  it.each(
    [
      [
        "a layer is missing",
        (image: OsImage) => image.layers.kernel?.descriptor.digest,
        undefined,
        "IMAGE_NOT_FOUND",
      ],
      [
        "the configuration is missing",
        (image: OsImage) => image.config.descriptor.digest,
        undefined,
        "IMAGE_NOT_FOUND",
      ],
      [
        "the manifest is missing",
        (image: OsImage) => image.manifest.descriptor.digest,
        undefined,
        "IMAGE_NOT_FOUND",
      ],
      [
        "a layer is another",
        (image: OsImage) => image.layers.kernel?.descriptor.digest,
        (bytes: Uint8Array) => bytes.map((byte) => byte ^ 1),
        "CONTENT_DIGEST_MISMATCH",
      ],
      [
        "a layer is cut",
        (image: OsImage) => image.layers.kernel?.descriptor.digest,
        (bytes: Uint8Array) => bytes.subarray(1),
        "CONTENT_SIZE_MISMATCH",
      ],
    ] as const,
  )("gives no image a name when of one %s", async (what, pick, spoil, code) => {
    const [, image] = await layoutOf("h.io/os:1", "h.io/os:2");
    const digest = image && pick(image);
    const path = join(folder().path, "blobs", ...(digest ?? "").split(":"));
    if (spoil) await writeFile(path, spoil(image?.layers.kernel?.bytes ?? new Uint8Array()));
    else await rm(path);
    const context = await emptyCache();
    const { code: actual } = await rejectionOf(importImages(context, { source: source(), name: undefined }));
    expect(actual).toBe(code);
    expect(await listImages(context)).toEqual([]);
    // What was cut may be whole the next time.
    const partials = what === "a layer is cut" ? 1 : 0;
    expect(layoutProblems(context.rootDirectory, { partials })).toEqual([]);
  });

  it("takes an index without some of its manifests, and refuses one without any", async () => {
    const images = [
      osImage({ kernel: randomKernel() }),
      osImage({ kernel: randomKernel() }, { architecture: "arm64" }),
    ];
    const { index } = await publishLayout(folder().path, images);
    const remove = (image: OsImage | undefined) =>
      rm(join(folder().path, "blobs", ...(image?.manifest.descriptor.digest ?? "").split(":")));
    await remove(images[1]);
    const context = await emptyCache();
    const imported = await importImages(context, { source: source(), name });
    expect(imported.images[0]?.digest).toBe(index.descriptor.digest);
    expect((await listImages(context))[0]?.platforms.map(({ isComplete }) => isComplete)).toEqual([
      true,
      false,
    ]);
    await remove(images[0]);
    expect(await codeOf(importImages(await emptyCache(), { source: source(), name }))).toBe(
      "IMAGE_NOT_FOUND",
    );
  });

  it("says so when a name stands for something else afterwards", async () => {
    const notes: string[] = [];
    const context = await emptyCache(notes);
    await layoutOf("h.io/os:1");
    await importImages(context, { source: source(), name: undefined });
    await importImages(context, { source: source(), name: undefined });
    expect(notes).toEqual([]);
    await rm(folder().path, { recursive: true });
    const [image] = await layoutOf("h.io/os:1");
    await importImages(context, { source: source(), name: undefined });
    expect(notes).toEqual([expect.stringContaining('"h.io/os:1" stood for sha256:')]);
    expect((await listImages(context)).map(({ digest }) => digest)).toEqual([
      image?.manifest.descriptor.digest,
    ]);
  });

  it("keeps nothing of what a layout notes beside an entry", async () => {
    const { context, reference } = await cacheWith();
    await exportImages(context, { references: [reference], target: folder() });
    const path = join(folder().path, "index.json");
    const index = JSON.parse(await readFile(path, "utf8"));
    index.manifests[0].annotations["io.bootshim.reference"] = "h.io/forged:1";
    index.manifests[0].annotations["org.example.note"] = "theirs";
    await writeFile(path, JSON.stringify(index));
    const there = await emptyCache();
    await importImages(there, { source: source(), name: undefined });
    const [stored] = await there.content.references();
    expect(stored?.descriptor.annotations).not.toHaveProperty("org.example.note");
    expect(await there.content.findReference("h.io/forged:1")).toBeUndefined();
  });
});
