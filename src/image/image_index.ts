import { z } from "zod";
import { ShimError } from "../errors.ts";
import {
  annotationsJson,
  type Descriptor,
  descriptorJson,
  fromDescriptor,
  toDescriptor,
} from "./descriptor.ts";
import { parseJsonDocument } from "./json_document.ts";
import { OCI_INDEX } from "./media_type.ts";

/** An image index holds no more entries than this; the largest seen in the wild has a few dozen. */
const MAX_ENTRIES = 1000;

const indexJson = z.object({
  schemaVersion: z.literal(2).optional(),
  mediaType: z.string().optional(),
  manifests: z.array(descriptorJson),
  annotations: annotationsJson.nullish(),
  // Present in both kinds of document: the body would mean something else to another reader (CVE-2021-41190).
  layers: z.undefined({ error: "must not be in an image index" }).optional(),
  config: z.undefined({ error: "must not be in an image index" }).optional(),
});

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md */
export type ImageIndex = {
  readonly entries: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
};

/**
 * Reads an image index from verified bytes.
 *
 * @throws {ShimError} MANIFEST_INVALID, DIGEST_UNSUPPORTED; LIMIT_EXCEEDED over 1,000 entries
 */
export function parseImageIndex(bytes: Uint8Array, descriptor: Descriptor): ImageIndex {
  const what = `image index "${descriptor.digest}"`;
  const json = parseJsonDocument(bytes, indexJson, what);
  requireSameMediaType(json.mediaType, descriptor, what);
  if (json.manifests.length > MAX_ENTRIES) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read ${what}: it has ${json.manifests.length} entries, limit is ${MAX_ENTRIES}`,
    );
  }
  return { entries: json.manifests.map(toDescriptor), annotations: json.annotations ?? {} };
}

/** image-spec: a body's own media type, when it states one, is the one it was fetched as. */
export function requireSameMediaType(stated: string | undefined, descriptor: Descriptor, what: string): void {
  if (stated !== undefined && stated !== descriptor.mediaType) {
    throw new ShimError(
      "MANIFEST_INVALID",
      `Cannot read ${what}: it states media type "${stated}", but was offered as "${descriptor.mediaType}"`,
    );
  }
}

/** The bytes of an index. Equal input gives equal bytes, so equal images have equal digests. */
export function formatImageIndex(index: ImageIndex): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: index.entries.map(fromDescriptor),
    ...(Object.keys(index.annotations).length > 0 ? { annotations: index.annotations } : {}),
  }));
}
