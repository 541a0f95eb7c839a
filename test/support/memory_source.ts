import { ShimError } from "../../src/errors.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import type { Digest } from "../../src/image/digest.ts";
import type { ImageSource, VerifiedDocument } from "../../src/image/image_source.ts";
import { verifyBytes } from "../../src/image/verification.ts";
import type { ResolvingContext } from "../../src/agent/document_reader.ts";
import type { Blob } from "./blobs.ts";

/** An image source whose only name is that of its root, and that remembers what it was asked for. */
export class MemorySource implements ImageSource {
  readonly fetched: Digest[] = [];
  readonly #root: Blob;
  readonly #blobs: ReadonlyMap<Digest, Blob>;

  constructor(root: Blob, blobs: readonly Blob[]) {
    this.#root = root;
    this.#blobs = new Map([root, ...blobs].map((blob) => [blob.descriptor.digest, blob]));
  }

  resolve(): Promise<VerifiedDocument> {
    return Promise.resolve(this.#root);
  }

  async fetchDocument(descriptor: Descriptor): Promise<VerifiedDocument> {
    return { descriptor, bytes: await this.fetchSmallBlob(descriptor) };
  }

  // deno-lint-ignore require-await -- as a promise it must reject, not throw
  async fetchSmallBlob(descriptor: Descriptor): Promise<Uint8Array> {
    this.fetched.push(descriptor.digest);
    const blob = this.#blobs.get(descriptor.digest);
    if (!blob) throw new ShimError("REGISTRY_NOT_FOUND", `Cannot fetch "${descriptor.digest}": not there`);
    verifyBytes(descriptor, blob.bytes);
    return blob.bytes;
  }

  openBlob(): Promise<ReadableStream<Uint8Array>> {
    return Promise.reject(new Error("Resolving must touch no layer"));
  }

  readHead(): Promise<Uint8Array> {
    return Promise.reject(new Error("Resolving must touch no layer"));
  }
}

/** A cache that holds nothing. */
export const EMPTY_CACHE: ResolvingContext = {
  content: {
    hasBlob: () => Promise.resolve(false),
    readDocument: () => Promise.reject(new ShimError("IMAGE_NOT_FOUND", "There is no document")),
    references: () => Promise.resolve([]),
    findReference: () => Promise.resolve(undefined),
  },
};
