import { type Descriptor, requireAtMost } from "../image/descriptor.ts";
import type { FetchOptions, OpenBlobOptions } from "../image/image_source.ts";
import { verifyBytes } from "../image/verification.ts";
import { blobPath } from "./endpoint.ts";
import { withNextPlace } from "./next_place.ts";
import type { Repository } from "./repository.ts";
import { Attempts, withAttempts, withFreshRedirect } from "./resume.ts";
import { type ByteRange, openPart } from "./transfer/blob_part.ts";
import { BlobResumption } from "./transfer/blob_resumption.ts";
import { OrderedBlob } from "./transfer/ordered_blob.ts";
import { SameEntity } from "./transfer/same_entity.ts";
import { readUpTo } from "./transport.ts";

/** Of a blob that is read into memory: an image configuration. Layers are streamed. */
const MAX_SMALL_BLOB_BYTES = 4 * 1024 * 1024;

/**
 * A blob as it arrives; pulled, so memory does not grow with it, in order, though a large one may come over several
 * connections. Waits for its turn, and the answer's head is checked, before this resolves. Whoever takes the stream reads
 * it to its end or cancels it: others may wait for that.
 *
 * @throws {ShimError} REGISTRY_NOT_FOUND and its like; CONTENT_SIZE_MISMATCH when the server announces another size.
 *   The stream's own failures are told at {@link BlobResumption.read}
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-blobs
 */
export async function openBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: OpenBlobOptions = {},
): Promise<ReadableStream<Uint8Array>> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const action = `fetch blob "${descriptor.digest}" of "${repository.endpoint.name}"`;
  const leave = await repository.shared.queue.enter(repository, { action, signal });
  let chunks: AsyncGenerator<Uint8Array>;
  try {
    chunks = await openChunks(repository, descriptor, { ...options, signal });
  } catch (error) {
    leave();
    throw error;
  }
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const step = await chunks.next();
        if (!step.done) return controller.enqueue(step.value);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      leave();
      // Whoever asks for it again, after it came whole or failed for good, got a wrong one.
      repository.doubt(blobPath(descriptor.digest));
    },
    async cancel(reason) {
      // First the request, so that a read under way on a silent connection ends too.
      stop.abort(reason);
      await chunks.return(undefined).finally(leave);
    },
  }, { highWaterMark: 0 });
}

/** @throws {ShimError} see `ImageSource.fetchSmallBlob` */
export async function fetchSmallBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: FetchOptions = {},
): Promise<Uint8Array> {
  requireAtMost(descriptor, MAX_SMALL_BLOB_BYTES, "blob");
  const place = { path: blobPath(descriptor.digest), signal: options.signal };
  return await withNextPlace(repository, place, async () => {
    const chunks = await openChunks(repository, descriptor, options);
    const bytes = await readUpTo(chunks, descriptor.sizeBytes + 1);
    verifyBytes(descriptor, bytes);
    return bytes;
  });
}

async function openChunks(
  repository: Repository,
  descriptor: Descriptor,
  { startByte = 0, signal: outer, onWait }: OpenBlobOptions,
): Promise<AsyncGenerator<Uint8Array>> {
  const { limits, shared } = repository;
  const { digest, sizeBytes } = descriptor;
  const action = `fetch blob "${digest}" of "${repository.endpoint.name}"`;
  const blob = { repository, descriptor, action, entity: new SameEntity(shared.unsteadyOrigins) };
  const signal = outer ?? new AbortController().signal;
  const attempts = new Attempts(limits, { signal, onWait });
  const place = { path: blobPath(digest), signal };
  const openAnywhere = (range: ByteRange) =>
    withNextPlace(repository, place, () => openPart(blob, range, signal));
  // Whoever has served a part of it need not refuse the rest for good; whoever has served nothing may mean it.
  const open = (range: ByteRange) =>
    range.startByte === 0 ? openAnywhere(range) : withFreshRedirect(() => openAnywhere(range));
  const isLarge = sizeBytes - startByte > limits.plainBlobBytes;
  // Of a large one, only as much as tells whether more connections are faster.
  const endByte = isLarge ? startByte + limits.segmentBytes : sizeBytes;
  const first = await withAttempts(attempts, () => open({ startByte, endByte }));
  const resumption = new BlobResumption({ open, startByte, sizeBytes, attempts, action });
  if (!isLarge) return resumption.read(sizeBytes, first);
  const openOnce = (range: ByteRange, aheadSignal: AbortSignal) => openPart(blob, range, aheadSignal);
  return readAhead();

  async function* readAhead() {
    // Not before the first byte is asked for: a generator that is given up earlier runs no `finally`.
    const ahead = shared.readAhead.join(repository.endpoint.baseUrl.host);
    try {
      yield* new OrderedBlob({ resumption, open: openOnce, sizeBytes, limits, ahead, signal })
        .chunks(first, endByte);
    } finally {
      ahead.leave();
    }
  }
}
