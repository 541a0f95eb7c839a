import { createHash, randomBytes } from "node:crypto";
import { ShimError } from "../../src/errors.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { type DigestAlgorithm, digestOf } from "../../src/image/digest.ts";
import type { VerifiedDocument } from "../../src/image/image_source.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";

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

export function randomWord(): string {
  return `r${randomBytes(6).toString("hex")}`;
}

/** A stream of these chunks that counts how often it was cancelled. */
export function streamOf(
  ...chunks: readonly Uint8Array[]
): ReadableStream<Uint8Array> & { cancelled: number } {
  let next = 0;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = chunks[next++];
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
    cancel() {
      counted.cancelled++;
    },
  }, { highWaterMark: 0 });
  const counted = Object.assign(stream, { cancelled: 0 });
  return counted;
}

export function chunksOf(bytes: Uint8Array, chunkBytes: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    chunks.push(bytes.slice(start, start + chunkBytes));
  }
  return chunks;
}

export async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}

/** The ShimError a promise must reject with; anything else fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<ShimError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ShimError) return error;
    throw error;
  }
  throw new Error("Expected a failure, but the promise was fulfilled");
}

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return (await failureOf(promise)).code;
}
