import { randomBytes } from "node:crypto";
import type { VerifiedDocument } from "../../src/image/image_source.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import { blobOf } from "./blobs.ts";

/** A JSON object that need not be valid: tests spoil one field at a time. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** A fresh digest, as text, that no other test has. */
export function randomDigest(algorithm: "sha256" | "sha512" = "sha256"): string {
  return `${algorithm}:${randomBytes(algorithm === "sha256" ? 32 : 64).toString("hex")}`;
}

/** A descriptor in JSON, valid unless the changes spoil it; a field changed to `undefined` is left out. */
export function descriptorJsonOf(changes: JsonObject = {}): JsonObject {
  return { mediaType: OCI_MANIFEST, digest: randomDigest(), size: 7, ...changes };
}

/** An index entry for a platform; `os` is linux unless told. */
export function entryJsonOf(
  architecture: string,
  changes: JsonObject & { variant?: string; os?: string } = {},
): JsonObject {
  const { variant, os = "linux", ...others } = changes;
  return descriptorJsonOf({ platform: { architecture, os, variant }, ...others });
}

export function indexJsonOf(entries: readonly JsonObject[], changes: JsonObject = {}): JsonObject {
  return { schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries, ...changes };
}

/** Layers by role word or by whole media type, each with a digest of its own. */
export function manifestJsonOf(
  layers: readonly (string | JsonObject)[] = [],
  changes: JsonObject = {},
): JsonObject {
  const layer = (word: string) =>
    descriptorJsonOf({ mediaType: word.includes("/") ? word : `application/vnd.ironcore.image.${word}` });
  return {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptorJsonOf({ mediaType: "application/vnd.ironcore.image.config.v1+json", size: 2 }),
    layers: layers.map((each) => typeof each === "string" ? layer(each) : each),
    ...changes,
  };
}

/** Some text as a document that its descriptor names. */
export function textDocument(text: string, mediaType = OCI_MANIFEST): VerifiedDocument {
  return blobOf(new TextEncoder().encode(text), { mediaType });
}

export function indexDocument(json: unknown): VerifiedDocument {
  return textDocument(JSON.stringify(json), OCI_INDEX);
}

export function manifestDocument(json: unknown, mediaType = OCI_MANIFEST): VerifiedDocument {
  return textDocument(JSON.stringify(json), mediaType);
}
