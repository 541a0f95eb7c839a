import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { type ImageWish, resolveImage } from "../../../src/agent/resolve_image.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../../src/image/media_type.ts";
import { parseReference } from "../../../src/image/reference.ts";
import type { Blob } from "../../support/blobs.ts";
import { codeOf, rejectionOf } from "../../support/failures.ts";
import type { JsonObject } from "../../support/image_documents.ts";
import { shapes } from "../../support/image_shapes.ts";
import { EMPTY_CACHE, MemorySource } from "../../support/memory_source.ts";
import { randomWord } from "../../support/random_word.ts";
import {
  type BuiltShape,
  CONFIG,
  entryOf,
  ShapeBuilder,
  type ShapeParts,
  WISHES,
} from "../../support/shape_builder.ts";

const bytes = () => new Uint8Array(randomBytes(32));
const parts: ShapeParts = {
  disk: bytes(),
  kernel: bytes(),
  initramfs: bytes(),
  squashfs: bytes(),
  fileSystem: bytes(),
  uki: bytes(),
  iso: bytes(),
  cmdline: `console=ttyS0 word=${randomWord()}`,
};

function resolve(built: BuiltShape, wish: Partial<ImageWish>) {
  const source = new MemorySource(built.root, [...built.documents, ...built.blobs]);
  const reference = parseReference(`127.0.0.1:5000/os/shape:${built.tag}`);
  return resolveImage(EMPTY_CACHE, {
    architecture: "amd64",
    variant: "virtualization",
    reference,
    pull: "missing",
    ...wish,
  }, { source: () => Promise.resolve(source) });
}

describe("resolveImage", () => {
  it("knows shapes 01 to 16, both editions, the draft and what they leave out", () => {
    const numbers = Array.from({ length: 16 }, (_, i) => `shape ${String(i + 1).padStart(2, "0")}`);
    expect(shapes.map(({ name }) => name.split(":")[0])).toEqual([
      ...numbers,
      "edition A",
      "edition B",
      "draft",
      "bare root",
      "disc",
    ]);
  });

  it("has README's table list every shape, with the test of that name", async () => {
    const readme = await readFile(new URL("../../../README.md", import.meta.url), "utf8");
    const [, table = ""] = readme.split("\n## Images it reads\n");
    const rows = [...table.matchAll(/^\| (.*?) \| .* \| .* \| `(.*)` \|$/gm)].map((
      [, row, test],
    ) => [row, test]);
    expect(rows).toEqual(shapes.map(({ name }) => {
      const test = name.split(":")[0];
      return [test?.replace("shape ", ""), test];
    }));
  });

  it.each(shapes)("reads $name", async ({ build }) => {
    const built = build(parts);
    const image = await resolve(built, {});
    expect({
      digest: image.root.digest,
      manifestDigest: image.chosen.descriptor.digest,
      layers: image.layers.map(({ role, descriptor: { digest } }) => ({ role, digest })),
      commandLine: image.config.commandLine,
      notes: image.notes,
    }).toEqual({
      digest: built.root.descriptor.digest,
      manifestDigest: built.choices[0],
      ...built.expected,
    });
  });

  it.each(shapes)("chooses for every wish out of $name", async ({ build }) => {
    const built = build(parts);
    for (const [place, wish] of WISHES.entries()) {
      const wanted = built.choices[place];
      const answer = wanted
        ? (await resolve(built, wish)).chosen.descriptor.digest
        : await codeOf(resolve(built, wish));
      expect([wish, answer]).toEqual([wish, wanted ?? "PLATFORM_NOT_FOUND"]);
    }
  });
});

describe("resolveImage, on what stands around the layers", () => {
  const kernel = "application/vnd.ironcore.image.kernel";
  const linux = (architecture: string) => ({ platform: { architecture, os: "linux" } });
  const builder = () => new ShapeBuilder();

  /** The image of one manifest, with or without an index around it. */
  function imageOf(
    make: (builder: ShapeBuilder) => Blob,
    { around, tag = "1" }: { around?: JsonObject; tag?: string } = {},
  ): BuiltShape {
    const shape = builder();
    const manifest = make(shape);
    const root = around ? shape.index([entryOf(manifest, around)]) : manifest;
    return shape.finish(root, [], { layers: [], tag });
  }

  it("gives every document that was read, children before parents", async () => {
    const built = shapes.find(({ name }) => name.startsWith("edition B"))?.build(parts);
    if (!built) throw new Error("There is no edition B");
    const image = await resolve(built, { variant: "metal" });
    const read = image.documents.map(({ descriptor: { digest } }) => digest);
    // Metal comes first in that index, and says so itself: no other manifest is read.
    expect(read).toEqual([
      image.manifest.config.digest,
      image.chosen.descriptor.digest,
      built.root.descriptor.digest,
    ]);
    const sizes = image.documents.map(({ bytes }) => bytes.length);
    expect(image.transferredBytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
  });

  it.each([
    ["arch", { arch: "arm64" }],
    ["architecture", { architecture: "aarch64", os: "linux" }],
  ])("HM17 refuses a lone manifest whose configuration's %s is another", async (_name, json) => {
    const built = imageOf((shape) =>
      shape.manifest([shape.layer(kernel)], { config: shape.config(CONFIG, json) })
    );
    expect(await rejectionOf(resolve(built, {}))).toMatchObject({
      code: "PLATFORM_NOT_FOUND",
      details: {
        offered: [{ architecture: "arm64", os: null, variant: null, digest: built.root.descriptor.digest }],
      },
    });
  });

  it.each([
    ["nothing", {}],
    ["its architecture", linux("amd64")],
  ])("HM17 refuses an entry that states %s, around a manifest for another one", async (_name, around) => {
    const built = imageOf(
      (shape) => shape.manifest([shape.layer(kernel)], { config: shape.config(CONFIG, { arch: "arm64" }) }),
      { around },
    );
    expect(await codeOf(resolve(built, {}))).toBe("PLATFORM_NOT_FOUND");
  });

  it("HM19 refuses an entry that says manifest and is an index, and the reverse", async () => {
    const shape = builder();
    const manifest = shape.manifest([shape.layer(kernel)], { changes: { mediaType: undefined } });
    const index = shape.index([], { mediaType: undefined });
    const roots = [
      shape.index([entryOf(index, { mediaType: OCI_MANIFEST })]),
      shape.index([entryOf(manifest, { mediaType: OCI_INDEX })]),
    ];
    for (const root of roots) {
      const built = shape.finish(root, [], { layers: [] });
      expect(await codeOf(resolve(built, {}))).toBe("MEDIA_TYPE_UNSUPPORTED");
    }
  });

  it("HM08 refuses an entry of another size than the same entry had before", async () => {
    const shape = builder();
    const manifest = shape.manifest([shape.layer(kernel)]);
    const index = shape.index([entryOf(manifest)]);
    const root = shape.index([entryOf(index), entryOf(manifest, { ...linux("arm64"), size: 5 })]);
    const built = shape.finish(root, [], { layers: [] });
    expect(await codeOf(resolve(built, { architecture: "arm64" }))).toBe("CONTENT_SIZE_MISMATCH");
  });

  it.each([
    ["application/vnd.oci.image.config.v1+json", { commandLine: "a=b", architecture: "amd64", rootfs: {} }],
    ["application/vnd.docker.container.image.v1+json", { commandLine: "a=b", config: { Cmd: ["x"] } }],
    ["application/vnd.onmetal.image.config.v1alpha1+json", { commandLine: "a=b" }],
  ])("reads a configuration of type %s, whatever else it holds", async (mediaType, json) => {
    const built = imageOf((shape) =>
      shape.manifest([shape.layer(kernel)], { config: shape.config(mediaType, json) })
    );
    const image = await resolve(built, {});
    expect([image.config.commandLine, image.notes]).toEqual(["a=b", []]);
  });

  it("HM11 ignores a configuration of an unknown type with a note, and keeps it", async () => {
    const built = imageOf((shape) =>
      shape.manifest([shape.layer(kernel)], { config: shape.layer("application/x-yaml") })
    );
    const image = await resolve(built, {});
    expect(image.config).toEqual({ commandLine: undefined, architecture: undefined });
    expect(image.notes).toEqual(['configuration of unknown media type "application/x-yaml" is ignored']);
    expect(image.documents.map((each) => each.descriptor.mediaType)).toContain("application/x-yaml");
  });

  it("HM14 refuses a command line that is a number", async () => {
    const built = imageOf((shape) =>
      shape.manifest([shape.layer(kernel)], { config: shape.config(CONFIG, { commandLine: 5 }) })
    );
    expect(await codeOf(resolve(built, {}))).toBe("MANIFEST_INVALID");
  });

  it("HM15 HM16 HM21 makes nothing of data fields, subjects, artifact types and foreign annotations", async () => {
    const foreign = { data: "eHh4", urls: ["http://169.254.169.254/"], "containerd.io/x": "y" };
    const annotations = {
      "org.opencontainers.image.ref.name": "127.0.0.1:5000/os/other:1",
      "io.bootshim.reference": "127.0.0.1:5000/os/other:1",
      "org.opencontainers.image.title": "../../etc/cron.d/x",
    };
    const built = imageOf((shape) =>
      shape.manifest([{ ...shape.layer(kernel), ...foreign, annotations }], {
        changes: { subject: { digest: "x" }, artifactType: 5, annotations, ...foreign },
      })
    );
    const image = await resolve(built, {});
    expect([image.name, image.notes, image.layers.map(({ role }) => role)]).toEqual([
      "127.0.0.1:5000/os/shape:1",
      [],
      ["kernel"],
    ]);
  });

  it("tells when only the name hints at an architecture, and it is another", async () => {
    const make = (shape: ShapeBuilder) => shape.manifest([shape.layer(kernel)]);
    const notes = async (tag: string, around?: JsonObject) =>
      (await resolve(imageOf(make, around ? { tag, around } : { tag }), {})).notes;
    const note = "nothing in the image states its architecture: it is taken to be for amd64, " +
      "though its name hints at arm64";
    expect([
      await notes("1.0-arm64"),
      await notes("1.0-amd64"),
      await notes("1.0"),
      await notes("1.0-arm64", linux("amd64")),
    ]).toEqual([[note], [], [], []]);
  });

  it("tells what of an index was passed over", async () => {
    const shape = builder();
    const manifest = shape.manifest([shape.layer(kernel)]);
    const blake = { ...entryOf(manifest, linux("arm64")), digest: `blake3:${"a".repeat(64)}` };
    const nested = entryOf(shape.index([]), linux("arm64"));
    const built = shape.finish(
      shape.index([entryOf(manifest, { ...linux("amd64"), annotations: { variant: "kvm" } }), blake, nested]),
      [],
      { layers: [] },
    );
    expect((await resolve(built, {})).notes).toEqual([
      "of the indexes inside the index 1 are not looked into: the choice needs none",
      "of the index's entries 1 are ignored: their digests cannot be verified",
    ]);
  });

  it("HM18 refuses documents that are over 32 MiB together", async () => {
    const shape = builder();
    const padding = "x".repeat(4 * 1024 * 1024 - 1000);
    const large = Array.from(
      { length: 9 },
      (_, i) =>
        shape.manifest([shape.layer(kernel)], { changes: { annotations: { padding: `${i}${padding}` } } }),
    );
    const built = shape.finish(
      shape.index(large.map((manifest) => entryOf(manifest, linux("amd64")))),
      [],
      { layers: [] },
    );
    expect(await codeOf(resolve(built, {}))).toBe("LIMIT_EXCEEDED");
  });
});
