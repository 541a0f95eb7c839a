import { ShimError } from "../errors.ts";
import { type Descriptor, requireAtMost } from "../image/descriptor.ts";
import type { FetchOptions, OpenBlobOptions } from "../image/image_source.ts";
import { verifyBytes } from "../image/verification.ts";
import { parseContentRange } from "./content_range.ts";
import { blobPath } from "./endpoint.ts";
import { withNextPlace } from "./next_place.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, type BlobPart, resumeBlob, withAttempts } from "./resume.ts";
import { contentLength, readUpTo, type RegistryResponse, requireIdentityCoding } from "./transport.ts";

/** Of a blob that is read into memory: an image configuration. Layers are streamed. */
const MAX_SMALL_BLOB_BYTES = 4 * 1024 * 1024;

/**
 * A blob as it arrives; pulled, so memory does not grow with it. The answer's head is checked before this resolves.
 * Whoever takes the stream reads it to its end or cancels it.
 *
 * @throws {ShimError} REGISTRY_NOT_FOUND and its like; CONTENT_SIZE_MISMATCH when the server announces another size.
 *   The stream's own failures are told at {@link resumeBlob}
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-blobs
 */
export async function openBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: OpenBlobOptions = {},
): Promise<ReadableStream<Uint8Array>> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const chunks = await openChunks(repository, descriptor, { ...options, signal });
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const step = await chunks.next();
        if (!step.done) return controller.enqueue(step.value);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      // Whoever asks for it again, after it came whole or failed for good, got a wrong one.
      repository.doubt(blobPath(descriptor.digest));
    },
    async cancel(reason) {
      // First the request, so that a read under way on a silent connection ends too.
      stop.abort(reason);
      await chunks.return(undefined);
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
  { signal, startByte = 0 }: OpenBlobOptions,
): Promise<AsyncGenerator<Uint8Array>> {
  const { sizeBytes } = descriptor;
  const action = `fetch blob "${descriptor.digest}" of "${repository.endpoint.name}"`;
  const attempts = new Attempts(repository.limits, signal);
  const place = { path: blobPath(descriptor.digest), signal };
  const open = (offsetBytes: number) =>
    withNextPlace(repository, place, () => openPart(repository, descriptor, { offsetBytes, action, signal }));
  const first = await withAttempts(attempts, () => open(startByte));
  return resumeBlob({ first, open, startByte, sizeBytes, attempts, action });
}

/** Always asks the registry, never the storage it redirects to: a signed URL may have expired meanwhile. */
async function openPart(
  repository: Repository,
  { digest, sizeBytes }: Descriptor,
  { offsetBytes, action, signal }: {
    readonly offsetBytes: number;
    readonly action: string;
    readonly signal: AbortSignal | undefined;
  },
): Promise<BlobPart> {
  const response = await repository.fetch({
    method: "GET",
    path: blobPath(digest),
    // Some registries answer 416 to a range without an end.
    headers: offsetBytes === 0 ? {} : { range: `bytes=${offsetBytes}-${sizeBytes - 1}` },
    action,
    signal,
  });
  try {
    if (response.status === 200) return wholeBlob(response, { sizeBytes, action });
    if (response.status === 206 && offsetBytes > 0) {
      return restOfBlob(response, { offsetBytes, sizeBytes, action });
    }
    if (response.status === 416 && offsetBytes > 0) {
      throw new ShimError(
        "CONTENT_SIZE_MISMATCH",
        `Cannot ${action}: the registry has no bytes after ${offsetBytes}, descriptor says ${sizeBytes} bytes`,
      );
    }
    throw await responseError(response, action);
  } catch (error) {
    response.discard();
    throw error;
  }
}

function wholeBlob(
  response: RegistryResponse,
  { sizeBytes, action }: { readonly sizeBytes: number; readonly action: string },
): BlobPart {
  requireIdentityCoding(response, action);
  const announced = contentLength(response, action);
  if (announced !== undefined && announced !== sizeBytes) {
    throw new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot ${action}: the registry announces ${announced} bytes, descriptor says ${sizeBytes} bytes`,
    );
  }
  return { chunks: response.body, startByte: 0, endByte: sizeBytes, discard: () => response.discard() };
}

function restOfBlob(
  response: RegistryResponse,
  { offsetBytes, sizeBytes, action }: {
    readonly offsetBytes: number;
    readonly sizeBytes: number;
    readonly action: string;
  },
): BlobPart {
  requireIdentityCoding(response, action);
  const range = parseContentRange(response.header("content-range"), { firstByte: offsetBytes, sizeBytes });
  const announced = contentLength(response, action);
  const isMultipart = response.header("content-type")?.trim().toLowerCase().startsWith("multipart/") ?? false;
  const isRightLength = announced === undefined || range === undefined ||
    announced === range.lastByte - range.firstByte + 1;
  if (range === undefined || isMultipart || !isRightLength) {
    throw new ShimError(
      "REGISTRY_PROTOCOL",
      `Cannot ${action}: the answer to a request for bytes ${offsetBytes} to ${
        sizeBytes - 1
      } is not that range`,
    );
  }
  return {
    chunks: response.body,
    startByte: offsetBytes,
    endByte: range.lastByte + 1,
    discard: () => response.discard(),
  };
}
