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
import { readJson, requireShape } from "./json_document.ts";
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
  /** Entries whose digests nobody here can verify. They are never used, and no reason to refuse the others. */
  readonly unverifiable: readonly DescriptorJson[];
  readonly annotations: Readonly<Record<string, string>>;
};

/**
 * Reads an image index from verified bytes.
 *
 * @throws {ShimError} MANIFEST_INVALID; MEDIA_TYPE_UNSUPPORTED when it is an image manifest; LIMIT_EXCEEDED over
 *   1,000 entries
 */
export function parseImageIndex(bytes: Uint8Array, descriptor: Descriptor): ImageIndex {
  const what = `image index "${descriptor.digest}"`;
  const value = readJson(bytes, what);
  requireKind(value, "index", descriptor);
  // Before anything is made of each of them, be it a complaint.
  const length = countEntries(value);
  if (length > MAX_ENTRIES) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read ${what}: it has ${length} entries, limit is ${MAX_ENTRIES}`,
    );
  }
  const json = requireShape(value, indexJson, what);
  requireSameMediaType(json.mediaType, descriptor, what);
  requireOneSize(json.manifests, what);
  const entries: Descriptor[] = [];
  const unverifiable: DescriptorJson[] = [];
  for (const entry of json.manifests) {
    try {
      entries.push(toDescriptor(entry));
    } catch (error) {
      if (!(error instanceof ShimError) || error.code !== "DIGEST_UNSUPPORTED") throw error;
      unverifiable.push(entry);
    }
  }
  return { entries, unverifiable, annotations: json.annotations ?? {} };
}

function countEntries(value: unknown): number {
  const isIndex = typeof value === "object" && value !== null && "manifests" in value;
  return isIndex && Array.isArray(value.manifests) ? value.manifests.length : 0;
}

/** The bytes of an index. Equal input gives equal bytes, so equal images have equal digests. */
export function formatImageIndex(index: Pick<ImageIndex, "entries" | "annotations">): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: index.entries.map(fromDescriptor),
    ...(Object.keys(index.annotations).length > 0 ? { annotations: index.annotations } : {}),
  }));
}
