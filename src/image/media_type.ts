/**
 * Media types, as tables: reading one more kind of image is adding a row.
 *
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md
 */

export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
/** The manifest type of the IronCore specification's first edition; the current one uses {@link OCI_MANIFEST}. */
export const IRONCORE_ARTIFACTS_MANIFEST = "application/vnd.ironcore.image.artifacts.v1+json";
export const IRONCORE_CONFIG = "application/vnd.ironcore.image.config.v1+json";

/** Documents that list manifests. */
const INDEX_TYPES: ReadonlySet<string> = new Set([
  OCI_INDEX,
  "application/vnd.docker.distribution.manifest.list.v2+json",
]);

/** Documents that list layers. */
const MANIFEST_TYPES: ReadonlySet<string> = new Set([
  OCI_MANIFEST,
  IRONCORE_ARTIFACTS_MANIFEST,
  "application/vnd.docker.distribution.manifest.v2+json",
]);

/** Configurations that are read as one JSON object. The first three are IronCore's own, by the names it has had. */
const CONFIG_TYPES: ReadonlySet<string> = new Set([
  IRONCORE_CONFIG,
  "application/vnd.ironcore.image.config.v1alpha1+json",
  "application/vnd.onmetal.image.config.v1alpha1+json",
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
  // "{}", in manifests that have no configuration to speak of; oras wrote the second one before it knew the first.
  "application/vnd.oci.empty.v1+json",
  "application/vnd.unknown.config.v1+json",
]);

export function isIndexType(mediaType: string): boolean {
  return INDEX_TYPES.has(mediaType);
}

export function isManifestType(mediaType: string): boolean {
  return MANIFEST_TYPES.has(mediaType);
}

export function isConfigType(mediaType: string): boolean {
  return CONFIG_TYPES.has(mediaType);
}

/** Everything {@link isIndexType} or {@link isManifestType} accepts, for an `Accept` header. */
export const DOCUMENT_TYPES: readonly string[] = [...INDEX_TYPES, ...MANIFEST_TYPES];
