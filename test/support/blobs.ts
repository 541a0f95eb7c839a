import { createHash, randomBytes } from "node:crypto";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { type DigestAlgorithm, digestOf } from "../../src/image/digest.ts";
import type { VerifiedDocument } from "../../src/image/image_source.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { randomWord } from "./random_word.ts";

export type Blob = { readonly bytes: Uint8Array; readonly descriptor: Descriptor };

/** The true descriptor of some bytes, made without the code under test. */
export function blobOf(
  bytes: Uint8Array,
  { mediaType = "application/octet-stream", algorithm = "sha256" }: {
    mediaType?: string;
    algorithm?: DigestAlgorithm;
  } = {},
): Blob {
  const digest = digestOf(algorithm, createHash(algorithm).update(bytes).digest("hex"));
  return { bytes, descriptor: { mediaType, digest, sizeBytes: bytes.length, annotations: {} } };
}

/** Bytes that nobody can have guessed, and their true descriptor. */
export function randomBlob(sizeBytes: number): Blob {
  return blobOf(new Uint8Array(randomBytes(sizeBytes)));
}

/** A manifest that no other test has. */
export function randomManifest(
  parts: { config?: Descriptor; layers?: readonly Descriptor[] } = {},
): VerifiedDocument {
  const json = ({ mediaType, digest, sizeBytes }: Descriptor) => ({ mediaType, digest, size: sizeBytes });
  return blobOf(
    new TextEncoder().encode(JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: json(parts.config ?? blobOf(new TextEncoder().encode("{}")).descriptor),
      layers: (parts.layers ?? []).map(json),
      annotations: { "org.example.random": randomWord() },
    })),
    { mediaType: OCI_MANIFEST },
  );
}
