import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { formatImageIndex, parseImageIndex } from "../../../src/image/image_index.ts";
import type { VerifiedDocument } from "../../../src/image/image_source.ts";
import { IRONCORE_ARTIFACTS_MANIFEST, OCI_INDEX, OCI_MANIFEST } from "../../../src/image/media_type.ts";
import {
  descriptorJsonOf,
  entryJsonOf,
  indexDocument,
  indexJsonOf,
  randomDigest,
  textDocument,
} from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const read = ({ bytes, descriptor }: VerifiedDocument) => parseImageIndex(bytes, descriptor);

function refuse(document: VerifiedDocument, why: string, code = "MANIFEST_INVALID"): void {
  expect(refusalOf(() => read(document))).toEqual({
    code,
    message: `Cannot read image index "${document.descriptor.digest}": ${why}`,
    details: {},
  });
}

describe("parseImageIndex", () => {
  it("reads entries in their order, and annotations", () => {
    const [first, second] = [randomDigest(), randomDigest("sha512")];
    const document = indexDocument(indexJsonOf([
      {
        mediaType: OCI_MANIFEST,
        digest: first,
        size: 1,
        platform: { architecture: "arm64", os: "linux", variant: "v8" },
      },
      { mediaType: IRONCORE_ARTIFACTS_MANIFEST, digest: second, size: 2, annotations: { variant: "metal" } },
    ], { annotations: { "org.opencontainers.image.ref.name": "../../another" } }));
    expect(read(document)).toEqual({
      entries: [
        {
          mediaType: OCI_MANIFEST,
          digest: first,
          sizeBytes: 1,
          annotations: {},
          platform: { architecture: "arm64", os: "linux", variant: "v8" },
        },
        {
          mediaType: IRONCORE_ARTIFACTS_MANIFEST,
          digest: second,
          sizeBytes: 2,
          annotations: { variant: "metal" },
        },
      ],
      unverifiable: [],
      annotations: { "org.opencontainers.image.ref.name": "../../another" },
    });
  });

  it.each([
    ["no entries", indexJsonOf([])],
    ["no media type", indexJsonOf([], { mediaType: undefined })],
    ["no schema version", indexJsonOf([], { schemaVersion: undefined })],
    ["annotations null", indexJsonOf([], { annotations: null })],
    ["HM21 foreign fields", indexJsonOf([], { artifactType: 7, subject: { digest: "x" }, "x-y": [[]] })],
  ])("reads an index with %s", (_name, json) => {
    expect(read(indexDocument(json))).toEqual({ entries: [], unverifiable: [], annotations: {} });
  });

  it.each(["__proto__", "constructor", "prototype"])(
    "HM10 refuses %s, and keeps prototypes intact",
    (name) => {
      for (
        const text of [
          `{"manifests":[],"${name}":{"polluted":1}}`,
          `{"manifests":[],"annotations":{"${name}":"x"}}`,
        ]
      ) {
        refuse(textDocument(text, OCI_INDEX), `it holds the name "${name}", which is no document's to give`);
      }
      expect(({} as Record<string, unknown>)["polluted"]).toBe(undefined);
    },
  );

  it("HM10 reads names as they are spelt", () => {
    refuse(
      textDocument('{"Manifests":[]}', OCI_INDEX),
      "manifests: Invalid input: expected array, received undefined",
    );
  });

  it.each([
    ["layers", { layers: [] }, "layers: must not be in an image index"],
    ["layers that are null", { layers: null }, "layers: must not be in an image index"],
    ["a config", { config: descriptorJsonOf() }, "config: must not be in an image index"],
  ])("HM03 refuses %s in an index as ambiguous", (_name, changes, why) => {
    refuse(indexDocument(indexJsonOf([entryJsonOf("amd64")], changes)), why);
  });

  it.each([
    ["an array", [], "document: Invalid input: expected object, received array"],
    ["null", null, "document: Invalid input: expected object, received null"],
    ["schema version 1", indexJsonOf([], { schemaVersion: 1 }), "schemaVersion: Invalid input: expected 2"],
    [
      "entries that are an object",
      indexJsonOf([], { manifests: {} }),
      "manifests: Invalid input: expected array, received object",
    ],
    [
      "an entry that is null",
      { manifests: [null] },
      "manifests.0: Invalid input: expected object, received null",
    ],
    [
      "HM07 a broken size",
      indexJsonOf([entryJsonOf("amd64"), entryJsonOf("amd64", { size: -1 })]),
      "manifests.1.size: Too small: expected number to be >=0",
    ],
    [
      "another media type than it was offered as",
      indexJsonOf([], { mediaType: OCI_MANIFEST }),
      `it states media type "${OCI_MANIFEST}", but was offered as "${OCI_INDEX}"`,
    ],
  ])("refuses %s", (_name, json, why) => refuse(indexDocument(json), why));

  it("HM07 HM08 refuses one digest with two sizes", () => {
    const digest = randomDigest();
    const entry = (size: number) => ({ mediaType: OCI_MANIFEST, digest, size });
    refuse(
      indexDocument(indexJsonOf([entry(7), entry(7), entry(8)])),
      `it gives "${digest}" two sizes, 7 and 8 bytes, must give it one`,
    );
  });

  it("HM04 refuses an entry's broken digest", () => {
    const json = indexJsonOf([entryJsonOf("amd64"), entryJsonOf("amd64", { digest: "sha256:../../x" })]);
    expect(refusalOf(() => read(indexDocument(json))).code).toBe("MANIFEST_INVALID");
  });

  it("HM05 keeps an entry apart whose digest nobody can verify", () => {
    const digest = `blake3:${"a".repeat(64)}`;
    const usable = entryJsonOf("amd64");
    const index = read(indexDocument(indexJsonOf([entryJsonOf("arm64", { digest }), usable])));
    expect([index.entries.map((entry) => entry.digest), index.unverifiable.map((entry) => entry.digest)])
      .toEqual([[usable["digest"]], [digest]]);
  });

  it.each([
    ["a manifest", { schemaVersion: 2, config: descriptorJsonOf(), layers: [] }],
    ["a manifest that says so", { mediaType: OCI_MANIFEST, config: descriptorJsonOf(), layers: [] }],
    ["a manifest without configuration", { layers: [descriptorJsonOf()] }],
  ])("HM19 refuses %s that was offered as an index", (_name, json) => {
    refuse(
      indexDocument(json),
      `it is an image manifest, but was offered as "${OCI_INDEX}"`,
      "MEDIA_TYPE_UNSUPPORTED",
    );
  });

  it("HM18 reads 1,000 entries and not one more", () => {
    const entries = Array.from({ length: 1001 }, () => entryJsonOf("amd64"));
    expect(read(indexDocument(indexJsonOf(entries.slice(1)))).entries).toHaveLength(1000);
    refuse(indexDocument(indexJsonOf(entries)), "it has 1001 entries, limit is 1000", "LIMIT_EXCEEDED");
    const nothings = Array.from({ length: 100_000 }, () => ({}));
    refuse(indexDocument(indexJsonOf(nothings)), "it has 100000 entries, limit is 1000", "LIMIT_EXCEEDED");
  });

  it("gives an index or a ShimError, whatever the JSON", () => {
    const anyEntry = fc.record({
      mediaType: fc.oneof(fc.constant(OCI_MANIFEST), fc.string()),
      digest: fc.oneof(fc.constant(randomDigest()), fc.string()),
      size: fc.oneof(fc.nat(), fc.double(), fc.string()),
      annotations: fc.oneof(fc.dictionary(fc.string(), fc.string()), fc.jsonValue()),
      platform: fc.jsonValue(),
    }, { requiredKeys: [] });
    const anyIndex = fc.oneof(
      fc.jsonValue(),
      fc.record({
        manifests: fc.array(anyEntry, { maxLength: 3 }),
        layers: fc.jsonValue(),
        annotations: fc.jsonValue(),
      }, {
        requiredKeys: ["manifests"],
      }),
    );
    fc.assert(fc.property(anyIndex, (json) => {
      try {
        expect(Array.isArray(read(indexDocument(json)).entries)).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(ShimError);
      }
    }));
  });
});

describe("formatImageIndex", () => {
  it("gives equal bytes for equal indexes, and they read back the same", () => {
    const index = read(indexDocument(indexJsonOf([
      entryJsonOf("amd64", { annotations: { variant: "metal" } }),
      entryJsonOf("arm64", { variant: "v8" }),
    ], { annotations: { a: "b" } })));
    const bytes = formatImageIndex(index);
    expect(formatImageIndex(structuredClone(index))).toEqual(bytes);
    expect(read(textDocument(new TextDecoder().decode(bytes), OCI_INDEX))).toEqual(index);
  });

  it("writes schema version and media type first, and no empty annotations", () => {
    expect(new TextDecoder().decode(formatImageIndex({ entries: [], annotations: {} }))).toBe(
      `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[]}`,
    );
  });
});
