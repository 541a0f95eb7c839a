import type { ErrorCode } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";

/** A manifest or index: its descriptor, and the very bytes that the descriptor's digest was checked against. */
export type VerifiedDocument = { readonly descriptor: Descriptor; readonly bytes: Uint8Array };

/** A source failed in a way that passes, and is asked again. */
export type SourceWait = {
  readonly code: ErrorCode;
  /** From now until it is asked. */
  readonly delayMs: number;
};

export type FetchOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told before each further try. */
  readonly onWait?: ((wait: SourceWait) => void) | undefined;
};

export type OpenBlobOptions = FetchOptions & {
  /** Where in the blob to begin; default 0. Less than the blob's size, or 0. */
  readonly startByte?: number | undefined;
};

/**
 * Where an image comes from: a registry or an image layout on disk. Both speak these verbs, and neither knows the
 * other; `agent/` copies between a source and the content store.
 */
export interface ImageSource {
  /**
   * Names to bytes: what a tag or digest stands for now. The digest is computed from the bytes, not taken from a header.
   *
   * @throws {ShimError} REGISTRY_NOT_FOUND when there is nothing by that name
   */
  resolve(tagOrDigest: string | Digest, options?: FetchOptions): Promise<VerifiedDocument>;

  /**
   * The manifest or index a descriptor names, whole and verified; nobody sees the bytes before size and digest held.
   *
   * @throws {ShimError} MANIFEST_TOO_LARGE, CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, REGISTRY_NOT_FOUND
   */
  fetchDocument(descriptor: Descriptor, options?: FetchOptions): Promise<VerifiedDocument>;

  /**
   * A small blob (an image configuration), whole and verified.
   *
   * @throws {ShimError} LIMIT_EXCEEDED, CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, REGISTRY_NOT_FOUND
   */
  fetchSmallBlob(descriptor: Descriptor, options?: FetchOptions): Promise<Uint8Array>;

  /**
   * A layer's bytes as they arrive, from `startByte` to the end (a source that only finds out later gives one more).
   * NOT verified: only the content store's ingest may consume them, because only it compares and then commits or
   * discards.
   */
  openBlob(descriptor: Descriptor, options?: OpenBlobOptions): Promise<ReadableStream<Uint8Array>>;

  /**
   * A layer's first bytes, NOT verified: enough to say how an image would boot, never to boot it.
   *
   * @param lengthBytes at most 1 MiB
   * @returns fewer bytes for a shorter layer
   */
  readHead(descriptor: Descriptor, lengthBytes: number, options?: FetchOptions): Promise<Uint8Array>;
}

/** Gives some bytes from `startByte` to their end, anew at each call. */
export type OpenContent = (
  startByte: number,
) => ReadableStream<Uint8Array> | Promise<ReadableStream<Uint8Array>>;

/** How a destination came to have a blob: its bytes were sent, or it had them in another repository. */
export type BlobTransfer = "uploaded" | "mounted";

/** Where an upload's begun session is kept from one run to the next. */
export type UploadMemory = {
  /** Gives what is kept, and keeps it no longer: it is anybody's word, and one who goes on with it keeps it anew. */
  readonly recall: () => Promise<RememberedUpload | undefined>;
  readonly keep: (session: RememberedUpload) => Promise<void>;
  readonly forget: () => Promise<void>;
};

export type RememberedUpload = {
  /** Absolute. Whoever has it may be able to write into the upload. */
  readonly url: string;
  readonly chunkBytes: number;
};

export type PushBlobOptions = FetchOptions & {
  /** Default: an upload that this process does not finish is begun anew by the next. */
  readonly memory?: UploadMemory | undefined;
  /** Another repository of the same registry that may have the blob already. */
  readonly mountFrom?: string | undefined;
  /** Told as bytes are sent how many of the blob have been; falls back when some have to be sent again. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
};

/** Where an image goes to. */
export interface ImageDestination {
  hasBlob(descriptor: Descriptor, options?: FetchOptions): Promise<boolean>;
  pushBlob(descriptor: Descriptor, open: OpenContent, options?: PushBlobOptions): Promise<BlobTransfer>;
  /** @param tagOrDigest the name to publish under */
  pushDocument(
    document: VerifiedDocument,
    tagOrDigest: string | Digest,
    options?: FetchOptions,
  ): Promise<void>;
}
