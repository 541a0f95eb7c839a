import type { ContentStore } from "../content/content_store.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { requireConfigSize } from "../image/image_manifest.ts";
import type { ImageSource, VerifiedDocument } from "../image/image_source.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import type { Reference } from "../image/reference.ts";
import { verifyBytes } from "../image/verification.ts";
import type { PullPolicy } from "./agent_context.ts";
import type { LazySource } from "./open_source.ts";

/** All that resolving needs of an `AgentContext`. */
export type ResolvingContext = {
  readonly content: Pick<ContentStore, "hasBlob" | "readDocument" | "references" | "findReference">;
};

export type Asking = { readonly source: LazySource | null; readonly signal?: AbortSignal | undefined };

export type ReadDocument = VerifiedDocument & {
  /** It was not in the cache. */
  readonly isTransferred: boolean;
};

/** Documents of one image, together: they are all kept in memory until they are stored. */
const MAX_DOCUMENTS_BYTES = 32 * 1024 * 1024;

/** Reads documents from the cache, else from the source, and remembers each of them in the order of first use. */
export class DocumentReader {
  readonly #context: ResolvingContext;
  readonly #name: string;
  readonly #asking: Asking;
  readonly #documents = new Map<Digest, ReadDocument>();
  transferredBytes = 0;
  #totalBytes = 0;

  constructor(context: ResolvingContext, name: string, asking: Asking) {
    this.#context = context;
    this.#name = name;
    this.#asking = asking;
  }

  /** What the reference stands for: the cache's word for it, unless the policy is to ask anew. */
  async readRoot(
    { reference, pull }: { readonly reference: Reference; readonly pull: PullPolicy },
  ): Promise<VerifiedDocument> {
    const known = pull === "always" && !reference.digest ? undefined : await this.#knownRoot(reference);
    const cached = known && await this.#readCached(known);
    if (cached) return cached;
    const document = await (await this.#requireSource()).resolve(
      reference.digest ?? reference.tag,
      this.#asking,
    );
    return this.#remember(document, true);
  }

  async read(descriptor: Descriptor): Promise<VerifiedDocument> {
    return await this.#readWith(
      descriptor,
      async (source) => await source.fetchDocument(descriptor, this.#asking),
    );
  }

  /** @throws {ShimError} MANIFEST_INVALID over 4 MiB, before any of it is fetched */
  async readConfig(descriptor: Descriptor): Promise<VerifiedDocument> {
    requireConfigSize(descriptor);
    return await this.#readWith(
      descriptor,
      async (source) => ({ descriptor, bytes: await source.fetchSmallBlob(descriptor, this.#asking) }),
    );
  }

  /** The order of reading is parents first: an index, its manifests, their configurations. */
  childrenFirst(): ReadDocument[] {
    return [...this.#documents.values()].reverse();
  }

  async #readWith(
    descriptor: Descriptor,
    fetch: (source: ImageSource) => Promise<VerifiedDocument>,
  ): Promise<VerifiedDocument> {
    const known = this.#documents.get(descriptor.digest);
    if (known) {
      verifyBytes(descriptor, known.bytes);
      return known;
    }
    return await this.#readCached(descriptor) ??
      this.#remember(await fetch(await this.#requireSource()), true);
  }

  async #readCached(descriptor: Descriptor): Promise<VerifiedDocument | undefined> {
    this.#requireRoom(descriptor);
    const { content } = this.#context;
    try {
      return this.#remember(await content.readDocument(descriptor), false);
    } catch (error) {
      const { code } = error instanceof ShimError ? error : {};
      if (code === "IMAGE_NOT_FOUND") return undefined;
      // What shows without hashing to be damaged is fetched again, like what is missing; a source has its own limits.
      const isDoubtful = code === "CONTENT_CORRUPT" || code === "MANIFEST_TOO_LARGE";
      if (isDoubtful && !await content.hasBlob(descriptor)) return undefined;
      throw error;
    }
  }

  /** One document that is too large by itself is left to whoever reads it. */
  #requireRoom({ digest, sizeBytes }: Descriptor): void {
    if (sizeBytes > MAX_DOCUMENT_BYTES || this.#totalBytes + sizeBytes <= MAX_DOCUMENTS_BYTES) return;
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read "${digest}" of image "${this.#name}": with ${sizeBytes} bytes its documents are over ` +
        `${MAX_DOCUMENTS_BYTES} bytes together`,
    );
  }

  /** A digest names the same image under any name, so any cached reference to it will do. */
  async #knownRoot(reference: Reference): Promise<Descriptor | undefined> {
    const found = reference.digest
      ? (await this.#context.content.references()).find((each) => each.descriptor.digest === reference.digest)
      : await this.#context.content.findReference(this.#name);
    return found?.descriptor;
  }

  #remember(document: VerifiedDocument, isTransferred: boolean): VerifiedDocument {
    this.#documents.set(document.descriptor.digest, { ...document, isTransferred });
    this.#totalBytes += document.bytes.length;
    if (isTransferred) this.transferredBytes += document.bytes.length;
    return document;
  }

  async #requireSource(): Promise<ImageSource> {
    if (this.#asking.source) return await this.#asking.source();
    throw new ShimError(
      "IMAGE_NOT_FOUND",
      `Cannot use image "${this.#name}": it is not complete in the cache, and pulling is "never"`,
      {
        details: { remedy: `run: bootshim pull ${this.#name}` },
      },
    );
  }
}
