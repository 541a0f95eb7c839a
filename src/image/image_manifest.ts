import { z } from "zod";
import { ShimError } from "../errors.ts";
import {
  annotationsJson,
  type Descriptor,
  type DescriptorJson,
  descriptorJson,
  fromDescriptor,
  requireOneSize,
  toDescriptor,
} from "./descriptor.ts";
import { requireKind, requireSameMediaType } from "./document_kind.ts";
import { MAX_DOCUMENT_BYTES, parseJsonDocument, readJson, requireShape } from "./json_document.ts";
import { OCI_MANIFEST } from "./media_type.ts";

const MAX_LAYERS = 128;

const manifestJson = z.object({
  schemaVersion: z.literal(2).optional(),
  mediaType: z.string().optional(),
  config: descriptorJson,
  layers: z.array(descriptorJson),
  annotations: annotationsJson.nullish(),
  manifests: z.undefined({ error: "must not be in an image manifest" }).optional(),
});

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md */
export type ImageManifest = {
  readonly config: Descriptor;
  /** Digests are checked when a layer gets a role: one that nobody needs may use any algorithm. */
  readonly layers: readonly DescriptorJson[];
  readonly annotations: Readonly<Record<string, string>>;
};

/**
 * Reads an image manifest from verified bytes.
 *
 * @throws {ShimError} MANIFEST_INVALID; DIGEST_UNSUPPORTED for its configuration's; MEDIA_TYPE_UNSUPPORTED when it is
 *   an image index; LIMIT_EXCEEDED over 128 layers
 */
export function parseImageManifest(bytes: Uint8Array, descriptor: Descriptor): ImageManifest {
  const what = `image manifest "${descriptor.digest}"`;
  const value = readJson(bytes, what);
  requireKind(value, "manifest", descriptor);
  const json = requireShape(value, manifestJson, what);
  requireSameMediaType(json.mediaType, descriptor, what);
  if (json.layers.length > MAX_LAYERS) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read ${what}: it has ${json.layers.length} layers, limit is ${MAX_LAYERS}`,
    );
  }
  requireOneSize([json.config, ...json.layers], what);
  return { config: toDescriptor(json.config), layers: json.layers, annotations: json.annotations ?? {} };
}

/** The bytes of a manifest of our own making. Equal input gives equal bytes. */
export function formatImageManifest(
  manifest: {
    config: Descriptor;
    layers: readonly Descriptor[];
    annotations: Readonly<Record<string, string>>;
  },
): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: fromDescriptor(manifest.config),
    layers: manifest.layers.map(fromDescriptor),
    ...(Object.keys(manifest.annotations).length > 0 ? { annotations: manifest.annotations } : {}),
  }));
}

/**
 * The IronCore image configuration. `commandLine` is the kernel's command line; everything else (`{}` and plain OCI
 * configurations are common) is somebody else's.
 */
const configJson = z.object({
  commandLine: z.string().nullish(),
  architecture: z.string().nullish(),
  arch: z.string().nullish(),
});

export type ImageConfig = {
  readonly commandLine: string | undefined;
  readonly architecture: string | undefined;
};

/**
 * Refuses a configuration by what the manifest says of it, so that none of it need be fetched.
 *
 * @throws {ShimError} MANIFEST_INVALID over 4 MiB
 */
export function requireConfigSize({ digest, sizeBytes }: Descriptor): void {
  if (sizeBytes <= MAX_DOCUMENT_BYTES) return;
  throw new ShimError(
    "MANIFEST_INVALID",
    `Cannot read image configuration "${digest}": ${sizeBytes} bytes, limit is ${MAX_DOCUMENT_BYTES} bytes`,
    { details: { remedy: "build the image anew with a configuration that holds no more than its settings" } },
  );
}

/** @throws {ShimError} MANIFEST_INVALID, also over 4 MiB */
export function parseImageConfig(bytes: Uint8Array, descriptor: Descriptor): ImageConfig {
  requireConfigSize(descriptor);
  const json = parseJsonDocument(bytes, configJson, `image configuration "${descriptor.digest}"`);
  // Go writes an architecture that nobody set as "".
  return {
    commandLine: json.commandLine ?? undefined,
    architecture: json.architecture || json.arch || undefined,
  };
}
