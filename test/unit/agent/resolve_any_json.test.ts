/** Whatever an image's documents hold, there is an answer or one of our codes, soon. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ResolvedImage, resolveImage } from "../../../src/agent/resolve_image.ts";
import { type ErrorCode, ShimError } from "../../../src/errors.ts";
import { DOCUMENT_TYPES, OCI_INDEX, OCI_MANIFEST } from "../../../src/image/media_type.ts";
import { parseReference } from "../../../src/image/reference.ts";
import { type Blob, blobOf } from "../../support/blobs.ts";
import { FUZZ_RUNS } from "../../support/fuzz_runs.ts";
import { type JsonObject, randomDigest } from "../../support/image_documents.ts";
import { EMPTY_CACHE, MemorySource } from "../../support/memory_source.ts";
import { CONFIG, entryOf, WISHES } from "../../support/shape_builder.ts";

/** Far above what any document takes, even on a busy host: it is there to notice one that takes for ever. */
const MAX_MS = 5000;

/** What a document may be refused with; anything else would be a fault of ours. */
const REFUSALS: readonly ErrorCode[] = [
  "MANIFEST_INVALID",
  "MEDIA_TYPE_UNSUPPORTED",
  "DIGEST_UNSUPPORTED",
  "PLATFORM_NOT_FOUND",
  "LAYER_MISSING",
  "LAYER_DUPLICATE",
  "LIMIT_EXCEEDED",
  "CONTENT_SIZE_MISMATCH",
  "REGISTRY_NOT_FOUND",
];

/** A document with those it lists: they are made first, because it names their digests. */
type Tree = {
  readonly mediaType: string;
  readonly json: unknown;
  readonly children: readonly (readonly [Tree, JsonObject])[];
  readonly config: unknown;
  readonly layers: readonly JsonObject[];
};

const word = fc.oneof(
  fc.constantFrom("amd64", "x86_64", "arm64", "v8", "linux", "gardenlinux", "kvm", "metal", "virtualization"),
  fc.constantFrom("rootfs", "kernel", "initramfs", "", "other", "__proto__", "constructor"),
  fc.string(),
);
/** Mostly what belongs there, so that some images are whole. */
function mostly<T>(arbitrary: fc.Arbitrary<T>, weight = 20): fc.Arbitrary<T | fc.JsonValue> {
  return fc.oneof({ weight, arbitrary }, { weight: 1, arbitrary: fc.jsonValue() });
}
const annotations = mostly(fc.dictionary(
  fc.constantFrom("variant", "architecture", "cname", "feature_set", "title", "__proto__", "x"),
  word,
  { noNullPrototype: true },
));
const platform = mostly(fc.record({ architecture: word, os: word, variant: word }, { requiredKeys: [] }));
const layerType = fc.oneof(
  fc.constantFrom("rootfs", "kernel", "disk.img", "vmlinuz.v1alpha1.vmlinuz").map((each) =>
    `application/vnd.ironcore.image.${each}`
  ),
  word.map((each) => `application/x${each}`),
  fc.constantFrom("application/octet-stream", "application/vnd.oci.image.layer.v1.tar+gzip", "a/b"),
);
const layer = fc.record({
  mediaType: layerType,
  digest: mostly(fc.constant(null).map(() => randomDigest())),
  size: mostly(fc.nat()),
  annotations,
}, { requiredKeys: ["mediaType", "digest", "size"] });
const entryChanges = fc.record({
  mediaType: fc.oneof(fc.constantFrom(...DOCUMENT_TYPES), layerType),
  size: fc.jsonValue(),
  digest: fc.string(),
  platform,
  annotations,
}, { requiredKeys: [] }).map((changes) => {
  // Mostly the truth, so that something is behind it.
  const { digest, size, mediaType, ...others } = changes;
  return (digest ?? "").length % 7 === 3
    ? { ...others, digest }
    : size === 0
    ? { ...others, size, mediaType }
    : others;
});
const configJson = mostly(
  fc.record({ commandLine: word, architecture: word, arch: word }, { requiredKeys: [] }),
);
const extra = fc.oneof(
  fc.record({ annotations }, { requiredKeys: [] }),
  fc.dictionary(
    fc.constantFrom("annotations", "schemaVersion", "mediaType", "subject", "manifests", "layers", "x"),
    fc.jsonValue(),
    { maxKeys: 1, noNullPrototype: true },
  ),
);

const { tree } = fc.letrec<{ tree: Tree; manifest: Tree; index: Tree; anything: Tree }>((tie) => ({
  tree: fc.oneof({ maxDepth: 6, depthSize: "small" }, tie("manifest"), tie("index"), tie("anything")),
  manifest: fc.record({
    mediaType: fc.constant(OCI_MANIFEST),
    json: extra,
    children: fc.constant([]),
    config: configJson,
    layers: fc.array(layer, { maxLength: 4 }),
  }),
  index: fc.record({
    mediaType: fc.constant(OCI_INDEX),
    json: extra,
    children: fc.array(fc.tuple(tie("tree"), entryChanges), { maxLength: 4 }),
    config: fc.constant(undefined),
    layers: fc.constant([]),
  }),
  anything: fc.record({
    mediaType: fc.constantFrom(...DOCUMENT_TYPES),
    json: fc.jsonValue(),
    children: fc.constant([]),
    config: fc.constant(undefined),
    layers: fc.constant([]),
  }),
}));

function jsonBlob(json: unknown, mediaType: string): Blob {
  return blobOf(new TextEncoder().encode(JSON.stringify(json)), { mediaType });
}

/** @param blobs collects everything below the document, and the document */
function plant({ mediaType, json, children, config, layers }: Tree, blobs: Blob[]): Blob {
  const entries = children.map(([child, changes]) => entryOf(plant(child, blobs), changes));
  const configBlob = config === undefined ? undefined : jsonBlob(config, CONFIG);
  if (configBlob) blobs.push(configBlob);
  const body = configBlob
    ? { config: entryOf(configBlob), layers, ...Object(json) }
    : mediaType === OCI_INDEX && children.length > 0
    ? { manifests: entries, ...Object(json) }
    : json;
  const blob = jsonBlob(body, mediaType);
  blobs.push(blob);
  return blob;
}

async function answer(root: Blob, blobs: readonly Blob[], place: number): Promise<ResolvedImage | ErrorCode> {
  const source = new MemorySource(root, blobs);
  const wish = WISHES[place % WISHES.length] ?? { architecture: "amd64", variant: "metal" };
  const reference = parseReference("127.0.0.1:5000/os/any:1-arm64");
  const started = performance.now();
  try {
    return await resolveImage(EMPTY_CACHE, { ...wish, reference, pull: "always" }, {
      source: () => Promise.resolve(source),
    });
  } catch (error) {
    if (error instanceof ShimError) return error.code;
    throw error;
  } finally {
    expect(performance.now() - started).toBeLessThan(MAX_MS);
    expect(source.fetched.length).toBeLessThanOrEqual(66);
  }
}

describe("resolveImage, whatever the documents", () => {
  it("gives an image with one layer for each role, or refuses with a code", async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(tree, fc.nat(), async (root, place) => {
        const blobs: Blob[] = [];
        const result = await answer(plant(root, blobs), blobs, place);
        seen.add(typeof result === "string" ? result : "an image");
        if (typeof result === "string") {
          expect(REFUSALS).toContain(result);
          return;
        }
        const roles = result.layers.map(({ role }) => role);
        expect([roles.length > 0, new Set(roles).size]).toEqual([true, roles.length]);
        expect(blobs.map((blob) => blob.descriptor.digest)).toContain(result.chosen.descriptor.digest);
      }),
      { numRuns: FUZZ_RUNS },
    );
    // The documents are not all refused at the door.
    expect(seen.size).toBeGreaterThanOrEqual(3);
  }, 60_000 + FUZZ_RUNS * 20);

  it.each([
    ["words of 2 MB that nested entries inherit", (inner: Blob) => ({
      platform: { architecture: "x".repeat(2_000_000), os: "y".repeat(1_000_000) },
      ...entryOf(inner),
    })],
    ["features of 2 MB", (inner: Blob) => ({
      annotations: { feature_set: "kv,".repeat(700_000) },
      ...entryOf(inner),
    })],
  ])("takes less than a second over %s", async (_name, entry) => {
    const leaves = Array.from({ length: 900 }, (_, i) => jsonBlob({ manifests: [], i }, OCI_INDEX));
    const inner = jsonBlob({ manifests: leaves.map((leaf) => entryOf(leaf)) }, OCI_INDEX);
    const root = jsonBlob({ manifests: [entry(inner)] }, OCI_INDEX);
    expect(await answer(root, [inner, ...leaves], 0)).toBe("LIMIT_EXCEEDED");
  });
});
