import { describe, expect, it } from "vitest";
import { DOCUMENT_TYPES, isIndexType, isManifestType } from "../../../src/image/media_type.ts";

const INDEXES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.ironcore.image.artifacts.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];

describe("isIndexType and isManifestType", () => {
  it.each([
    ...INDEXES.map((mediaType) => [mediaType, { isIndex: true, isManifest: false }] as const),
    ...MANIFESTS.map((mediaType) => [mediaType, { isIndex: false, isManifest: true }] as const),
    ["application/vnd.docker.distribution.manifest.v1+prettyjws", { isIndex: false, isManifest: false }],
    ["Application/vnd.oci.image.index.v1+json", { isIndex: false, isManifest: false }],
    ["", { isIndex: false, isManifest: false }],
  ])("tell what %s is", (mediaType, expected) => {
    expect({ isIndex: isIndexType(mediaType), isManifest: isManifestType(mediaType) }).toEqual(expected);
  });
});

describe("DOCUMENT_TYPES", () => {
  it("are all that is accepted", () => {
    expect(DOCUMENT_TYPES).toEqual([...INDEXES, ...MANIFESTS]);
  });
});
