import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { toDescriptor } from "../../../src/image/descriptor.ts";
import {
  formatImageManifest,
  parseImageConfig,
  parseImageManifest,
} from "../../../src/image/image_manifest.ts";
import type { VerifiedDocument } from "../../../src/image/image_source.ts";
import {
  IRONCORE_ARTIFACTS_MANIFEST,
  IRONCORE_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../../../src/image/media_type.ts";
import { randomWord } from "../../support/random_word.ts";
import {
  descriptorJsonOf,
  manifestDocument,
  manifestJsonOf,
  randomDigest,
  textDocument,
} from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const read = ({ bytes, descriptor }: VerifiedDocument) => parseImageManifest(bytes, descriptor);
const config = { mediaType: IRONCORE_CONFIG, digest: randomDigest(), size: 2 };
const expectedConfig = { mediaType: IRONCORE_CONFIG, digest: config.digest, sizeBytes: 2, annotations: {} };

function refuse(document: VerifiedDocument, why: string, code = "MANIFEST_INVALID"): void {
  expect(refusalOf(() => read(document))).toEqual({
    code,
    message: `Cannot read image manifest "${document.descriptor.digest}": ${why}`,
    details: {},
  });
}

describe("parseImageManifest", () => {
  it("reads configuration, layers in their order, and annotations", () => {
    const layers = [
      { mediaType: "a/b", digest: randomDigest(), size: 1, annotations: { title: "x" } },
      { mediaType: "c/d", digest: `blake3:${"a".repeat(64)}`, size: 2 },
    ];
    expect(read(manifestDocument(manifestJsonOf(layers, { config, annotations: { variant: "metal" } }))))
      .toEqual({
        config: expectedConfig,
        layers,
        annotations: { variant: "metal" },
      });
  });

  it.each([
    ["no layers", manifestJsonOf([], { config })],
    ["no media type", manifestJsonOf([], { config, mediaType: undefined })],
    ["no schema version", manifestJsonOf([], { config, schemaVersion: undefined })],
    ["annotations null", manifestJsonOf([], { config, annotations: null })],
    [
      "HM21 foreign fields",
      manifestJsonOf([], { config, artifactType: "x", subject: { digest: 5 }, blobs: [] }),
    ],
  ])("reads a manifest with %s", (_name, json) => {
    expect(read(manifestDocument(json))).toEqual({ config: expectedConfig, layers: [], annotations: {} });
  });

  it("reads the manifest type of the specification's first edition", () => {
    const json = manifestJsonOf([], { config, mediaType: IRONCORE_ARTIFACTS_MANIFEST });
    expect(read(manifestDocument(json, IRONCORE_ARTIFACTS_MANIFEST)).config).toEqual(expectedConfig);
  });

  it.each([
    [
      "HM03 manifests beside layers",
      manifestJsonOf([], { manifests: [] }),
      "manifests: must not be in an image manifest",
    ],
    [
      "HM03 manifests that are null",
      manifestJsonOf([], { manifests: null }),
      "manifests: must not be in an image manifest",
    ],
    [
      "HM10 Layers for layers",
      { ...manifestJsonOf([], { layers: undefined }), Layers: [] },
      "layers: Invalid input: expected array, received undefined",
    ],
    [
      "schema version 1",
      manifestJsonOf([], { schemaVersion: 1 }),
      "schemaVersion: Invalid input: expected 2",
    ],
    [
      "HM07 a layer without size",
      manifestJsonOf(["rootfs", descriptorJsonOf({ size: undefined })]),
      "layers.1.size: Invalid input: expected number, received undefined",
    ],
    [
      "another media type than it was offered as",
      manifestJsonOf([], { mediaType: OCI_INDEX }),
      `it states media type "${OCI_INDEX}", but was offered as "${OCI_MANIFEST}"`,
    ],
  ])("refuses %s", (_name, json, why) => refuse(manifestDocument(json), why));

  it("HM07 HM08 refuses one digest with two sizes, among layers or with the configuration", () => {
    const digest = randomDigest();
    const layer = (size: number) => ({ mediaType: "a/b", digest, size });
    const why = (one: number, other: number) =>
      `it gives "${digest}" two sizes, ${one} and ${other} bytes, must give it one`;
    refuse(manifestDocument(manifestJsonOf([layer(3), layer(3), layer(0)], { config })), why(3, 0));
    refuse(manifestDocument(manifestJsonOf([layer(8)], { config: { ...config, digest } })), why(2, 8));
    expect(read(manifestDocument(manifestJsonOf([layer(3), layer(3)], { config }))).layers).toHaveLength(2);
  });

  it.each([
    ["an index", { schemaVersion: 2, manifests: [] }],
    ["an index that says so", { mediaType: OCI_INDEX, manifests: [descriptorJsonOf()] }],
  ])("HM19 refuses %s that was offered as a manifest", (_name, json) => {
    refuse(
      manifestDocument(json),
      `it is an image index, but was offered as "${OCI_MANIFEST}"`,
      "MEDIA_TYPE_UNSUPPORTED",
    );
  });

  it("HM04 HM05 refuses the configuration's broken digest", () => {
    for (
      const [digest, code] of [["sha256:%2e", "MANIFEST_INVALID"], [
        `md5:${"a".repeat(32)}`,
        "DIGEST_UNSUPPORTED",
      ]]
    ) {
      const json = manifestJsonOf([], { config: descriptorJsonOf({ digest }) });
      expect(refusalOf(() => read(manifestDocument(json))).code).toBe(code);
    }
  });

  it("reads 128 layers and not one more", () => {
    const layers = Array.from({ length: 129 }, () => descriptorJsonOf());
    expect(read(manifestDocument(manifestJsonOf(layers.slice(1)))).layers).toHaveLength(128);
    refuse(manifestDocument(manifestJsonOf(layers)), "it has 129 layers, limit is 128", "LIMIT_EXCEEDED");
  });

  it("gives a manifest or a ShimError, whatever the JSON", () => {
    const anyManifest = fc.oneof(
      fc.jsonValue(),
      fc.record({
        config: fc.oneof(fc.constant(config), fc.jsonValue()),
        layers: fc.array(fc.jsonValue(), { maxLength: 3 }),
      }),
    );
    fc.assert(fc.property(anyManifest, (json) => {
      try {
        expect(Array.isArray(read(manifestDocument(json)).layers)).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(ShimError);
      }
    }));
  });
});

describe("formatImageManifest", () => {
  it("gives equal bytes for equal manifests, and they read back the same", () => {
    const read1 = read(
      manifestDocument(manifestJsonOf(["kernel", "initramfs"], { annotations: { variant: "metal" } })),
    );
    const manifest = { ...read1, layers: read1.layers.map(toDescriptor) };
    const bytes = formatImageManifest(manifest);
    expect(formatImageManifest(structuredClone(manifest))).toEqual(bytes);
    expect(read(textDocument(new TextDecoder().decode(bytes)))).toEqual(read1);
  });

  it("writes the fields in image-spec's order, and no empty annotations", () => {
    const manifest = { config: toDescriptor(config), layers: [], annotations: {} };
    expect(new TextDecoder().decode(formatImageManifest(manifest))).toBe(
      `{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}",` +
        `"config":{"mediaType":"${IRONCORE_CONFIG}","digest":"${config.digest}","size":2},"layers":[]}`,
    );
  });
});

describe("parseImageConfig", () => {
  const readConfig = (text: string) => {
    const { bytes, descriptor } = textDocument(text, IRONCORE_CONFIG);
    return parseImageConfig(bytes, descriptor);
  };
  const word = randomWord();

  it.each([
    ["nothing", {}, { commandLine: undefined, architecture: undefined }],
    ["a command line", { commandLine: `${word}\n` }, { commandLine: `${word}\n`, architecture: undefined }],
    ["null for what nobody set", { commandLine: null, architecture: null, arch: null }, {
      commandLine: undefined,
      architecture: undefined,
    }],
    ["an empty command line", { commandLine: "" }, { commandLine: "", architecture: undefined }],
    ["a plain OCI configuration", { architecture: "arm64", os: "linux", rootfs: { type: "layers" } }, {
      commandLine: undefined,
      architecture: "arm64",
    }],
    ["the extra keys of old images", { "os-release": "x", arch: "amd64" }, {
      commandLine: undefined,
      architecture: "amd64",
    }],
    ["both words for the architecture", { architecture: "arm64", arch: "amd64" }, {
      commandLine: undefined,
      architecture: "arm64",
    }],
    ["an architecture that nobody set", { architecture: "", os: "" }, {
      commandLine: undefined,
      architecture: undefined,
    }],
  ])("reads %s", (_name, json, expected) => {
    expect(readConfig(JSON.stringify(json))).toEqual(expected);
  });

  it.each([
    ["HM14 garbage", "\u0000\u0001", "it is not a UTF-8 JSON document"],
    ["HM14 an array", "[]", "document: Invalid input: expected object, received array"],
    [
      "HM14 a number as command line",
      '{"commandLine":5}',
      "commandLine: Invalid input: expected string, received number",
    ],
    [
      "HM10 two command lines",
      '{"commandLine":"a","commandLine":"b"}',
      '"commandLine" stands twice in one object',
    ],
  ])("refuses %s", (_name, text, why) => {
    expect(refusalOf(() => readConfig(text))).toEqual({
      code: "MANIFEST_INVALID",
      message: `Cannot read image configuration "${textDocument(text).descriptor.digest}": ${why}`,
      details: {},
    });
  });

  it("HM14 refuses more than 4 MiB before it looks at them", () => {
    const { descriptor } = textDocument("{}", IRONCORE_CONFIG);
    const large = { ...descriptor, sizeBytes: 4 * 1024 * 1024 + 1 };
    expect(refusalOf(() => parseImageConfig(new Uint8Array(), large))).toEqual({
      code: "MANIFEST_INVALID",
      message:
        `Cannot read image configuration "${descriptor.digest}": 4194305 bytes, limit is 4194304 bytes`,
      details: { remedy: "build the image anew with a configuration that holds no more than its settings" },
    });
  });
});
