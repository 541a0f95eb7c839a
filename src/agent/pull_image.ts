import type { LocalLayer, RoleLayer } from "../boot/prepared_boot.ts";
import { ShimError, toShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { ImageSource, SourceWait } from "../image/image_source.ts";
import type { LockedBlobs } from "../content/blob_transfers.ts";
import type { AgentContext } from "./agent_context.ts";
import { requireWithinLimits } from "./image_limits.ts";
import { withDeadline } from "./deadline.ts";
import { withSource } from "./open_source.ts";
import { type OperationOptions, TransferProgress } from "./progress.ts";
import { requireRoom } from "./require_room.ts";
import { type ImageWish, type ResolvedImage, resolveImage } from "./resolve_image.ts";
import { withLease } from "./with_lease.ts";

/** An image whose chosen manifest is complete and verified in the cache. */
export type PulledImage = {
  readonly image: ResolvedImage;
  readonly layers: readonly LocalLayer[];
  /** Bytes that had to come from the source; 0 for a cached image. */
  readonly transferredBytes: number;
};

/**
 * Makes an image complete in the cache: layers and configuration, manifest, index, and last the reference, so that a
 * crash leaves unreferenced blobs at worst. Doing it again transfers nothing.
 *
 * @throws {ShimError} whatever {@link resolveImage} throws; LIMIT_EXCEEDED, CONTENT_SIZE_MISMATCH,
 *   CONTENT_DIGEST_MISMATCH, NO_SPACE, IO_ERROR
 */
export async function pullImage(
  context: AgentContext,
  wish: ImageWish,
  options: OperationOptions = {},
): Promise<PulledImage> {
  options.onProgress?.({ phase: "resolving", doneBytes: 0, totalBytes: 0, layers: [] });
  return await withDeadline(
    context,
    options,
    (timed) =>
      withLease(context, timed, (leased) =>
        withSource(leased, wish, async (source) => {
          const image = await resolveImage(leased, wish, { source, signal: timed.signal });
          return await pullResolved(leased, image, timed);
        })),
  );
}

/**
 * The second half of {@link pullImage}, for callers that decide something between resolving and transferring. They hold
 * a lease.
 */
export async function pullResolved(
  context: AgentContext,
  image: ResolvedImage,
  options: OperationOptions = {},
): Promise<PulledImage> {
  requireWithinLimits(context.imageLimits, image);
  await context.content.lease([...image.layers, ...image.documents].map((each) => each.descriptor));
  const layerBytes = await pullLayers(context, image, options);
  await context.content.ingestBytes(image.documents.filter((each) => each.isTransferred));
  const known = image.documents.filter((each) => !each.isTransferred);
  await context.content.settle(known.map((each) => each.descriptor.digest));
  await context.content.setReference(image.name, image.root);
  return {
    image,
    layers: image.layers.map((layer) => ({
      ...layer,
      path: context.content.blobPath(layer.descriptor.digest),
    })),
    transferredBytes: image.transferredBytes + layerBytes,
  };
}

/**
 * All missing layers at once; the first failure stops the others and is the one that is told. The layers become visible
 * together, so an image that turns out to be wrong leaves nothing behind; what a passing trouble interrupts leaves the
 * layers that were complete, and the beginnings of the others, for the next try.
 *
 * @returns bytes that this process moved: others may have brought the rest
 */
async function pullLayers(
  context: AgentContext,
  image: ResolvedImage,
  options: OperationOptions,
): Promise<number> {
  const missing = await missingBlobs(context, image.layers, options);
  const progress = new TransferProgress({
    phase: "pulling",
    blobs: missing,
    layers: image.layers,
    listener: options.onProgress,
  });
  if (missing.length === 0) return 0;
  const source = await requireSource(image, missing);
  const watch = {
    signal: options.signal,
    source: image.name,
    onProgress: (digest: Digest, doneBytes: number) => progress.advance(digest, doneBytes),
  };
  return await context.content.withMissing(missing, watch, async (locked) => {
    await requireRoom(context, await locked.missingBytes(), { signal: options.signal });
    return await transferTogether(locked, source, { ...options, progress });
  });
}

/** Every blob, or none of them gets its name unless the trouble is a passing one. */
async function transferTogether(
  locked: LockedBlobs,
  source: ImageSource,
  options: OperationOptions & { readonly progress: TransferProgress },
): Promise<number> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const gate = new CommitGate(locked.missing.length);
  let first: unknown;
  const fail = (error: unknown) => {
    first ??= error;
    const { retryable, code } = toShimError(error);
    if (retryable || code === "CANCELLED") gate.open();
    else gate.shut(error);
    stop.abort(error);
    return 0;
  };
  const transfers = locked.missing.map(async (descriptor) => {
    const onWait = (wait: SourceWait) => options.progress.wait(descriptor.digest, wait);
    // What is hashed again before the source is opened did not come now.
    let seenBytes = Infinity;
    const open = (startByte: number) => {
      seenBytes = startByte;
      return source.openBlob(descriptor, { startByte, signal, onWait });
    };
    const { receivedBytes } = await locked.ingest(descriptor, open, {
      signal,
      onProgress: (doneBytes) => {
        if (doneBytes > seenBytes) {
          options.onReceived?.(doneBytes - seenBytes);
          seenBytes = doneBytes;
        }
        options.progress.advance(descriptor.digest, doneBytes);
      },
      beforeCommit: () => gate.arrive(),
    });
    return receivedBytes;
  });
  const received = await Promise.all(transfers.map((transfer) => transfer.catch(fail)));
  if (first !== undefined) throw first;
  return received.reduce((sum, bytes) => sum + bytes, 0);
}

async function requireSource(image: ResolvedImage, missing: readonly Descriptor[]): Promise<ImageSource> {
  if (image.source) return await image.source();
  throw new ShimError(
    "IMAGE_NOT_FOUND",
    `Cannot use image "${image.name}": ${missing.length} of its layers are not in the cache, and pulling is "never"`,
    {
      details: { missing: missing.map((each) => each.digest), remedy: `run: bootshim pull ${image.name}` },
    },
  );
}

/** Where verified layers wait for each other before they become visible. */
class CommitGate {
  readonly #decided = Promise.withResolvers<void>();
  #awaited: number;

  constructor(layers: number) {
    this.#awaited = layers;
    // Nobody may be waiting when it is shut, and the failure is told by whoever shuts it.
    this.#decided.promise.catch(() => {});
  }

  /** Resolves when all have arrived, or nothing speaks against the verified ones. */
  async arrive(): Promise<void> {
    this.#awaited -= 1;
    if (this.#awaited === 0) this.open();
    await this.#decided.promise;
  }

  open(): void {
    this.#decided.resolve();
  }

  shut(error: unknown): void {
    this.#decided.reject(error);
  }
}

/**
 * Two roles may share one blob: it is fetched once. What is there is hashed at its first use in each boot of the host; what
 * is damaged is moved away, and so is missing.
 */
async function missingBlobs(
  context: AgentContext,
  layers: readonly RoleLayer[],
  { signal }: OperationOptions,
): Promise<Descriptor[]> {
  const missing = new Map<Digest, Descriptor>();
  const distinct = new Map(layers.map(({ descriptor }) => [descriptor.digest, descriptor]));
  for (const descriptor of distinct.values()) {
    const found = await context.audit.audit(descriptor.digest, descriptor.sizeBytes, { signal });
    if (found.state === "quarantined") {
      context.note(`${found.why}; it is kept as "${found.quarantinePath}", and fetched again`);
    }
    if (found.state !== "sound" || !await context.content.hasBlob(descriptor, found.status)) {
      missing.set(descriptor.digest, descriptor);
    }
  }
  return [...missing.values()];
}
