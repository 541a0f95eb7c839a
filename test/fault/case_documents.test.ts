/** Cases of hostile manifests, indexes and configurations, as whole pulls: the code, and the cache before and after. */
import { expect, it } from "vitest";
import type { ErrorCode } from "../../src/errors.ts";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import { type Blob, blobOf } from "../support/blobs.ts";
import { type CaseRig, onManifest, type PullCase, usePullCases } from "../support/case_kit.ts";
import { chunk, head, respond, type SeenRequest, serveRange } from "../support/fault_server.ts";
import type { JsonObject } from "../support/image_documents.ts";

const run = usePullCases();

const MIB = 1024 * 1024;
const encode = (text: string) => new TextEncoder().encode(text);
const documentOf = (json: unknown, mediaType = OCI_MANIFEST) =>
  blobOf(encode(JSON.stringify(json)), { mediaType });
const ABSENT = `sha256:${"0".repeat(64)}`;
const BLAKE = `blake3:${"a".repeat(64)}`;
const LEGACY = "application/vnd.ironcore.image.";

type Layer = JsonObject & { readonly mediaType: string };
type Manifest = JsonObject & { readonly layers: readonly Layer[] };
type Published = { readonly root: Blob; readonly more?: readonly Blob[] };

/** A registry that has these documents besides the image's blobs. */
const publishing = (make: (manifest: Manifest, rig: CaseRig) => Published) => (rig: CaseRig) => {
  const { root, more = [] } = make(JSON.parse(new TextDecoder().decode(rig.image.manifest.bytes)), rig);
  const all = [root, ...more, rig.image.manifest];
  return (request: SeenRequest) => {
    const found = request.path.endsWith("/manifests/1")
      ? root
      : all.find(({ descriptor }) => request.path.endsWith(descriptor.digest));
    if (found === undefined) return rig.serve(request);
    if (request.path.includes("/blobs/")) return serveRange(request, found.bytes);
    return respond(200, { headers: { "Content-Type": found.descriptor.mediaType }, body: found.bytes });
  };
};
const refused = (code: ErrorCode, make: (manifest: Manifest, rig: CaseRig) => Published): PullCase => ({
  registry: publishing(make),
  ends: ["S0", code],
});
const taken = (make: (manifest: Manifest, rig: CaseRig) => Published): PullCase => ({
  registry: publishing(make),
  ends: ["S2"],
});
const changed = (changes: (manifest: Manifest) => JsonObject) => (manifest: Manifest): Published => ({
  root: documentOf({ ...manifest, ...changes(manifest) }),
});
/** The manifest with other bytes. */
const bytes = (make: (text: string) => string | Uint8Array) => (manifest: Manifest): Published => {
  const made = make(JSON.stringify(manifest));
  return { root: blobOf(typeof made === "string" ? encode(made) : made, { mediaType: OCI_MANIFEST }) };
};
/** The rootfs's descriptor with other fields. */
const layer = (changes: JsonObject) =>
  changed(({ layers }) => ({
    layers: layers.map((each) => each.mediaType.endsWith("rootfs") ? { ...each, ...changes } : each),
  }));
const config = (blob: Blob) => (manifest: Manifest): Published => ({
  root: documentOf({ ...manifest, config: fromDescriptor(blob.descriptor) }),
  more: [blob],
});
const configText = (text: string) => blobOf(encode(text), { mediaType: `${LEGACY}config.v1+json` });
const textOf = (blob: Blob) => new TextDecoder().decode(blob.bytes);
const PROTOTYPE_NAMES = ["__proto__", "constructor", "prototype"];
/** The document with one name more, which JSON.stringify would not write. */
const withName = (name: string) => (text: string) =>
  text.replace(/\}$/, `${text === "{}" ? "" : ","}"${name}":{"layers":[],"polluted":1}}`);
const renamed = (blob: Blob, name: string) =>
  blobOf(encode(withName(name)(textOf(blob))), { mediaType: blob.descriptor.mediaType });
const platform = (architecture: string) => ({ platform: { architecture, os: "linux" } });
const indexOf = (entries: readonly JsonObject[], changes: JsonObject = {}) =>
  documentOf({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries, ...changes }, OCI_INDEX);
const entryOf = (blob: Blob, changes: JsonObject = {}): JsonObject => ({
  ...fromDescriptor({ ...blob.descriptor, annotations: {} }),
  ...changes,
});
/** So many indexes inside each other, around a manifest; each names the next so many times. */
function nested(depth: number, inner: Blob, times = 1): Published {
  const more: Blob[] = [];
  let root = inner;
  for (let i = 0; i < depth; i++) {
    more.push(root);
    const entry = entryOf(root, i === 0 ? platform("amd64") : {});
    root = indexOf(Array.from({ length: times }, () => entry));
  }
  return { root, more };
}

const CASES: readonly (readonly [name: string, row: PullCase])[] = [
  ["HM01 4 MiB and a byte", refused("MANIFEST_TOO_LARGE", bytes((text) => text.padEnd(4 * MIB + 1)))],
  ["HM01 without end", {
    registry: onManifest(() => [
      { send: head(200, { "Content-Type": OCI_MANIFEST, "Transfer-Encoding": "chunked" }) },
      { sendForever: chunk(new Uint8Array(65536).fill(32)) },
    ]),
    ends: ["S0", "MANIFEST_TOO_LARGE"],
  }],
  ["HM03 manifests beside layers", refused("MANIFEST_INVALID", changed(() => ({ manifests: [] })))],
  [
    "HM03 a configuration in an index",
    refused("MANIFEST_INVALID", (manifest, { image }) => ({
      root: indexOf([entryOf(image.manifest, platform("amd64"))], { config: manifest["config"] }),
    })),
  ],
  [
    "HM05 an unknown algorithm for a layer that is needed",
    refused("DIGEST_UNSUPPORTED", layer({ digest: BLAKE })),
  ],
  [
    "HM05 an unknown algorithm for one that is not",
    taken(changed(({ layers }) => ({
      layers: [...layers, { mediaType: "application/x-unknown", digest: BLAKE, size: 5 }],
    }))),
  ],
  ...[-1, 1.5, "5", 2 ** 53 + 2, null, undefined, [5]].map((size) =>
    [`HM07 size ${JSON.stringify(size)}`, refused("MANIFEST_INVALID", layer({ size }))] as const
  ),
  [
    "HM07 two sizes",
    refused("MANIFEST_INVALID", bytes((text) => text.replace('"size":', '"size":5,"size":'))),
  ],
  [
    "HM10 two lists of layers",
    refused("MANIFEST_INVALID", bytes((text) => text.replace(/\}$/, ',"layers":[]}'))),
  ],
  ["HM10 Layers", refused("MANIFEST_INVALID", bytes((text) => text.replace('"layers"', '"Layers"')))],
  ["HM10 a byte order mark", refused("MANIFEST_INVALID", bytes((text) => `\ufeff${text}`))],
  [
    "HM10 UTF-16",
    refused("MANIFEST_INVALID", bytes((text) => new Uint8Array(Buffer.from(text, "utf16le")))),
  ],
  [
    "HM10 invalid UTF-8",
    refused(
      "MANIFEST_INVALID",
      bytes((text) => new Uint8Array(Buffer.from(text.replace(/\}$/, ',"x":"\xff"}'), "latin1"))),
    ),
  ],
  [
    "HM10 half a surrogate pair",
    refused("MANIFEST_INVALID", bytes((text) => text.replace(/\}$/, ',"x":"\\ud800"}'))),
  ],
  [
    "HM10 100,000 levels",
    refused(
      "MANIFEST_INVALID",
      bytes((text) => text.replace(/\}$/, `,"x":${"[".repeat(100_000)}${"]".repeat(100_000)}}`)),
    ),
  ],
  ...PROTOTYPE_NAMES.flatMap((name) =>
    [
      [`HM10 ${name} in a manifest`, refused("MANIFEST_INVALID", bytes(withName(name)))],
      [
        `HM10 ${name} among a manifest's annotations`,
        refused("MANIFEST_INVALID", (manifest) => {
          const text = JSON.stringify({ ...manifest, annotations: { NAME: "polluted" } });
          return { root: blobOf(encode(text.replace("NAME", name)), { mediaType: OCI_MANIFEST }) };
        }),
      ],
      [
        `HM10 ${name} in an index`,
        refused("MANIFEST_INVALID", (_manifest, { image }) => {
          const index = indexOf([entryOf(image.manifest, platform("amd64"))]);
          return { root: renamed(index, name) };
        }),
      ],
      [
        `HM10 ${name} among an entry's annotations`,
        refused("MANIFEST_INVALID", (_manifest, { image }) => {
          const entry = entryOf(image.manifest, { ...platform("amd64"), annotations: { NAME: "x" } });
          return {
            root: blobOf(encode(textOf(indexOf([entry])).replace("NAME", name)), { mediaType: OCI_INDEX }),
          };
        }),
      ],
      [
        `HM10 ${name} in a configuration`,
        refused("MANIFEST_INVALID", config(configText(withName(name)("{}")))),
      ],
    ] as const
  ),
  [
    "HM10 a prototype's name by its escape",
    refused("MANIFEST_INVALID", bytes((text) => text.replace(/\}$/, ',"\\u005f_proto__":{"polluted":1}}'))),
  ],
  ["HM10 the names of prototypes as values", taken(changed(() => ({ annotations: { x: "__proto__" } })))],
  [
    "HM11 two disks",
    refused(
      "LAYER_DUPLICATE",
      changed(({ layers }) => ({
        layers: layers.map((each) => ({ ...each, mediaType: `${LEGACY}rootfs` })),
      })),
    ),
  ],
  ["HM11 no layer", refused("LAYER_MISSING", changed(() => ({ layers: [] })))],
  [
    "HM11 unknown layers only",
    refused(
      "LAYER_MISSING",
      changed(({ layers }) => ({
        layers: layers.map((each) => ({ ...each, mediaType: "application/x-unknown" })),
      })),
    ),
  ],
  [
    "HM11 an unknown layer more",
    taken(changed(({ layers }) => ({
      layers: [...layers, {
        ...layers[0],
        mediaType: "application/x-unknown",
        digest: `sha256:${"0".repeat(64)}`,
      }],
    }))),
  ],
  [
    "HM11 a configuration of another type",
    taken(config(blobOf(encode("a: b"), { mediaType: "application/x-yaml" }))),
  ],
  [
    "HM12 legacy media types",
    taken(changed(({ layers }) => ({
      layers: layers.map((each) => {
        const role = each.mediaType.slice(LEGACY.length).replace("kernel", "vmlinuz");
        return { ...each, mediaType: `${LEGACY}${role}.v1alpha1.${role}` };
      }),
    }))),
  ],
  ["HM14 garbage", refused("MANIFEST_INVALID", config(configText("\0\u0001")))],
  ["HM14 a list", refused("MANIFEST_INVALID", config(configText("[]")))],
  ["HM14 a number as command line", refused("MANIFEST_INVALID", config(configText('{"commandLine":5}')))],
  [
    "HM14 a list as command line",
    refused("MANIFEST_INVALID", config(configText('{"commandLine":["a"]}'))),
  ],
  ["HM14 over 4 MiB", refused("MANIFEST_INVALID", config(configText(`{}${" ".repeat(4 * MIB)}`)))],
  ["HM14 1 GiB, of which nothing is asked for", {
    ...refused("MANIFEST_INVALID", (manifest) => ({
      root: documentOf({
        ...manifest,
        config: { mediaType: `${LEGACY}config.v1+json`, digest: ABSENT, size: 1024 * MIB },
      }),
    })),
    heard: ({ registry }) =>
      expect(registry.requests.filter(({ path }) => path.endsWith(ABSENT))).toEqual([]),
  }],
  ["HM15 data of something else", taken(layer({ data: "eHh4" }))],
  ["HM16 annotations that would be paths, names and settings", {
    ...taken(changed(({ layers }) => {
      const annotations = {
        "org.opencontainers.image.title": "../../etc/cron.d/x",
        "org.opencontainers.image.ref.name": "127.0.0.1:5000/os/other:1",
        "io.bootshim.reference": "127.0.0.1:5000/os/other:1",
        "containerd.io/snapshot": "x\ny",
        "org.example.long": "x".repeat(MIB),
      };
      return {
        annotations,
        layers: layers.map((each) => ({ ...each, annotations: { ...annotations, "org.example.long": "" } })),
      };
    })),
    // In the manifest's own bytes and nowhere else: eight times there, for itself and its three layers.
    heard: ({ files }) => expect(files.split("127.0.0.1:5000/os/other:1").length - 1).toBe(8),
  }],
  [
    "HM17 nothing for us",
    refused("PLATFORM_NOT_FOUND", (_manifest, { image }) => ({
      root: indexOf([entryOf(image.manifest, platform("arm64"))]),
    })),
  ],
  [
    "HM17 two for us: the first",
    taken((manifest, { image }) => {
      const second = documentOf({ ...manifest, layers: [] });
      return {
        root: indexOf([entryOf(image.manifest, platform("amd64")), entryOf(second, platform("amd64"))]),
        more: [second],
      };
    }),
  ],
  ["HM17 no platform", taken((_manifest, { image }) => ({ root: indexOf([entryOf(image.manifest)]) }))],
  [
    "HM17 another architecture inside",
    refused("PLATFORM_NOT_FOUND", (manifest) => {
      const blob = configText('{"architecture":"arm64"}');
      const inner = documentOf({ ...manifest, config: fromDescriptor(blob.descriptor) });
      return { root: indexOf([entryOf(inner, platform("amd64"))]), more: [inner, blob] };
    }),
  ],
  ["HM18 four indexes inside each other", taken((_manifest, { image }) => nested(4, image.manifest))],
  ["HM18 five of them", refused("LIMIT_EXCEEDED", (_manifest, { image }) => nested(5, image.manifest))],
  ["HM18 fifty levels", refused("LIMIT_EXCEEDED", (_manifest, { image }) => nested(50, image.manifest))],
  ["HM18 2^30 paths", refused("LIMIT_EXCEEDED", (_manifest, { image }) => nested(30, image.manifest, 2))],
  ["HM18 eight paths to one manifest", taken((_manifest, { image }) => nested(4, image.manifest, 2))],
  [
    "HM18 100,000 entries that are none",
    refused("LIMIT_EXCEEDED", () => ({ root: indexOf(Array.from({ length: 100_000 }, () => ({}))) })),
  ],
  [
    "HM18 1,001 entries",
    refused("LIMIT_EXCEEDED", (_manifest, { image }) => ({
      root: indexOf(Array.from({ length: 1001 }, (_none, i) => entryOf(image.manifest, platform(`x${i}`)))),
    })),
  ],
  [
    "HM18 100,000 entries",
    refused("MANIFEST_TOO_LARGE", (_manifest, { image }) => ({
      root: indexOf(Array.from({ length: 100_000 }, () => entryOf(image.manifest))),
    })),
  ],
  [
    "HM19 an index that is said to be a manifest",
    refused("MEDIA_TYPE_UNSUPPORTED", (_manifest, { image }) => {
      const inner = indexOf([entryOf(image.manifest)], { mediaType: undefined });
      const said = { ...inner, descriptor: { ...inner.descriptor, mediaType: OCI_MANIFEST } };
      return { root: indexOf([entryOf(said, platform("amd64"))]), more: [said] };
    }),
  ],
  [
    "HM19 a manifest that is said to be an index",
    refused("MEDIA_TYPE_UNSUPPORTED", (manifest) => {
      const inner = documentOf({ ...manifest, mediaType: undefined }, OCI_INDEX);
      return { root: indexOf([entryOf(inner)]), more: [inner] };
    }),
  ],
  [
    "HM21 unknown types, subjects and fields",
    taken(changed(() => ({ artifactType: "application/x-y", subject: { digest: "x" }, "x-y": [[null]] }))),
  ],
];

it.concurrent.each(CASES)("%s", async (_name, row) => {
  await run(row);
  expect(({} as Record<string, unknown>)["polluted"]).toBe(undefined);
});
