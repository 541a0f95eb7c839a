import { describe, expect, it } from "vitest";
import { DOCUMENT_TYPES, isConfigType, isIndexType, isManifestType } from "../../../src/image/media_type.ts";

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
  it.each(INDEXES)("know index %s", (mediaType) => {
    expect([isIndexType(mediaType), isManifestType(mediaType)]).toEqual([true, false]);
  });

  it.each(MANIFESTS)("know manifest %s", (mediaType) => {
    expect([isIndexType(mediaType), isManifestType(mediaType)]).toEqual([false, true]);
  });

  it.each([
    "",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "Application/vnd.oci.image.index.v1+json",
  ])("know no %j", (mediaType) => {
    expect([isIndexType(mediaType), isManifestType(mediaType)]).toEqual([false, false]);
  });
});

describe("isConfigType", () => {
  it.each([
    "application/vnd.ironcore.image.config.v1+json",
    "application/vnd.ironcore.image.config.v1alpha1+json",
    "application/vnd.onmetal.image.config.v1alpha1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.empty.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.unknown.config.v1+json",
  ])("knows %s", (mediaType) => expect(isConfigType(mediaType)).toBe(true));

  it.each([...INDEXES, ...MANIFESTS, "application/json", "application/vnd.ironcore.image.rootfs"])(
    "does not know %s",
    (mediaType) => expect(isConfigType(mediaType)).toBe(false),
  );
});

describe("DOCUMENT_TYPES", () => {
  it("are all that is accepted", () => {
    expect(DOCUMENT_TYPES).toEqual([...INDEXES, ...MANIFESTS]);
  });
});
