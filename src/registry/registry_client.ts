/**
 * @module registry: an image source and destination that speaks the OCI distribution protocol to one repository of one
 * registry.
 *
 * May import errors and image; the only folder that knows undici. Invariants: every byte that is handed out whole was
 * verified; streams are bounded by their descriptor; `resume.ts` alone tries anything twice; a scheme never gets weaker
 * than `endpoint.ts` decided; credentials never cross an origin.
 *
 * @example
 * const client = new RegistryClient({ host: "127.0.0.1:5000", repository: "os/demo" });
 * const document = await client.resolve("latest");
 */
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type {
  BlobTransfer,
  FetchOptions,
  ImageDestination,
  ImageSource,
  OpenBlobOptions,
  OpenContent,
  PushBlobOptions,
  VerifiedDocument,
} from "../image/image_source.ts";
import type { RegistryReference } from "../image/reference.ts";
import { readHead } from "./blob_head.ts";
import { fetchSmallBlob, openBlob } from "./blobs.ts";
import { fetchDocument, resolveDocument } from "./documents.ts";
import { hasBlob, pushDocument } from "./push.ts";
import { listReferrers, type Referrer, type ReferrersOptions } from "./referrers.ts";
import { Registries, type RegistrySettings } from "./registries.ts";
import type { Repository } from "./repository.ts";
import { listTags } from "./tags.ts";
import { pushBlob } from "./upload.ts";

export type RegistryClientOptions =
  & Pick<RegistryReference, "host" | "repository">
  & RegistrySettings
  & {
    /** What all clients of this process share; whoever made it closes it. Default: a set of one's own. */
    readonly registries?: Registries;
  };

/** One repository. {@link RegistryClient.close} it. */
export class RegistryClient implements ImageSource, ImageDestination {
  readonly #repository: Repository;
  readonly #own: Registries | undefined;

  constructor({ host, repository, registries, ...settings }: RegistryClientOptions) {
    const shared = registries ?? new Registries(settings);
    this.#own = registries ? undefined : shared;
    this.#repository = shared.repository({ host, repository });
  }

  resolve(tagOrDigest: string | Digest, options?: FetchOptions): Promise<VerifiedDocument> {
    return resolveDocument(this.#repository, tagOrDigest, options);
  }

  fetchDocument(descriptor: Descriptor, options?: FetchOptions): Promise<VerifiedDocument> {
    return fetchDocument(this.#repository, descriptor, options);
  }

  fetchSmallBlob(descriptor: Descriptor, options?: FetchOptions): Promise<Uint8Array> {
    return fetchSmallBlob(this.#repository, descriptor, options);
  }

  openBlob(descriptor: Descriptor, options?: OpenBlobOptions): Promise<ReadableStream<Uint8Array>> {
    return openBlob(this.#repository, descriptor, options);
  }

  readHead(descriptor: Descriptor, lengthBytes: number, options?: FetchOptions): Promise<Uint8Array> {
    return readHead(this.#repository, descriptor, { ...options, lengthBytes });
  }

  /** @throws {ShimError} see {@link listTags} */
  listTags(options?: FetchOptions): Promise<readonly string[]> {
    return listTags(this.#repository, options);
  }

  /** @throws {ShimError} see {@link listReferrers} */
  listReferrers(digest: Digest, options?: ReferrersOptions): Promise<readonly Referrer[]> {
    return listReferrers(this.#repository, digest, options);
  }

  hasBlob(descriptor: Descriptor, options?: FetchOptions): Promise<boolean> {
    return hasBlob(this.#repository, descriptor, options);
  }

  pushBlob(
    descriptor: Descriptor,
    open: OpenContent,
    options?: PushBlobOptions,
  ): Promise<BlobTransfer> {
    return pushBlob(this.#repository, descriptor, { ...options, openContent: open });
  }

  pushDocument(
    document: VerifiedDocument,
    tagOrDigest: string | Digest,
    options?: FetchOptions,
  ): Promise<void> {
    return pushDocument(this.#repository, document, { ...options, tagOrDigest });
  }

  /** Cancels what is under way and closes all connections that are its own. */
  async close(): Promise<void> {
    await this.#own?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
