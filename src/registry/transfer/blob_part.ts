import { mainLoop } from "../../host/main_loop.ts";
import { ShimError } from "../../errors.ts";
import type { Descriptor } from "../../image/descriptor.ts";
import { parseContentRange } from "../content_range.ts";
import { blobPath } from "../endpoint.ts";
import type { Repository } from "../repository.ts";
import { responseError } from "../response_error.ts";
import { contentLength, type RegistryResponse, requireIdentityCoding } from "../transport.ts";
import { requireRate } from "./minimum_rate.ts";
import type { SameEntity } from "./same_entity.ts";

/** Bytes of a blob as one answer brings them. */
export type BlobPart = {
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Where in the blob the first chunk belongs: what was asked for, or 0 from a server that ignores Range. */
  readonly startByte: number;
  /** Nothing may come at or after this offset. */
  readonly endByte: number;
  discard(): void;
};

/** The bytes from `startByte` to before `endByte`. */
export type ByteRange = { readonly startByte: number; readonly endByte: number };

/** One blob of one repository, as it is asked for again and again. */
export type BlobAtRegistry = {
  readonly repository: Repository;
  readonly descriptor: Descriptor;
  /** Completes "Cannot …". */
  readonly action: string;
  readonly entity: SameEntity;
};

/**
 * Asks for a part of a blob, by a plain GET when it is all of it. The answer's head is checked before this resolves; it
 * may bring all of the blob, or less than was asked for.
 *
 * Always begins at the registry, never at the storage it redirects to: a signed URL may have expired meanwhile.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH when another size is announced; CONTENT_DIGEST_MISMATCH when the server says
 *   that it is no longer what the earlier parts were of; REGISTRY_PROTOCOL when it is another part
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14
 */
export async function openPart(
  blob: BlobAtRegistry,
  range: ByteRange,
  signal: AbortSignal | undefined,
): Promise<BlobPart> {
  const { repository, descriptor: { digest, sizeBytes }, action, entity } = blob;
  const { startByte, endByte } = range;
  const isRange = startByte > 0 || endByte < sizeBytes;
  const response = await repository.fetch({
    method: "GET",
    path: blobPath(digest),
    // Some registries answer 416 to a range without an end.
    headers: isRange ? { range: `bytes=${startByte}-${endByte - 1}` } : {},
    action,
    signal,
  });
  let isTaken = false;
  try {
    const { status } = response;
    if (status === 416 && isRange && startByte === 0) {
      response.discard();
      return await openPart(blob, { startByte, endByte: sizeBytes }, signal);
    }
    if (status === 416 && isRange) {
      throw new ShimError(
        "CONTENT_SIZE_MISMATCH",
        `Cannot ${action}: the registry has no bytes after ${startByte}, descriptor says ${sizeBytes} bytes`,
        { details: { receivedBytes: startByte, expectedBytes: sizeBytes } },
      );
    }
    if (status !== 200 && !(status === 206 && isRange)) throw await responseError(response, action);
    requireIdentityCoding(response, action);
    const got = status === 200
      ? requireWhole(response, { startByte, sizeBytes, action })
      : requireRange(response, { range, sizeBytes, action });
    entity.require(response, action);
    isTaken = true;
    return {
      ...got,
      chunks: sharingLoop(requireRate(response.body, { limits: repository.limits, action })),
      discard: () => response.discard(),
    };
  } finally {
    if (!isTaken) response.discard();
  }
}

/** Reads on only when others were served: a connection that always has more would keep the loop from all other sockets. */
async function* sharingLoop(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    await mainLoop.share();
    yield chunk;
  }
}

function requireWhole(
  response: RegistryResponse,
  { startByte, sizeBytes, action }: {
    readonly startByte: number;
    readonly sizeBytes: number;
    readonly action: string;
  },
): ByteRange {
  const announced = contentLength(response, action);
  if (announced !== undefined && announced !== sizeBytes) {
    throw new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot ${action}: the registry announces ${announced} bytes, descriptor says ${sizeBytes} bytes`,
      // An answer that is not the blob says nothing against what came of it before.
      startByte > 0 ? { details: { receivedBytes: startByte, expectedBytes: sizeBytes } } : {},
    );
  }
  return { startByte: 0, endByte: sizeBytes };
}

function requireRange(
  response: RegistryResponse,
  { range: { startByte, endByte }, sizeBytes, action }: {
    readonly range: ByteRange;
    readonly sizeBytes: number;
    readonly action: string;
  },
): ByteRange {
  const range = parseContentRange(response.header("content-range"), { firstByte: startByte, sizeBytes });
  const announced = contentLength(response, action);
  const isMultipart = response.header("content-type")?.trim().toLowerCase().startsWith("multipart/") ?? false;
  const isRightLength = announced === undefined || range === undefined ||
    announced === range.lastByte - range.firstByte + 1;
  if (range === undefined || range.lastByte >= endByte || isMultipart || !isRightLength) {
    throw new ShimError(
      "REGISTRY_PROTOCOL",
      `Cannot ${action}: the answer to a request for bytes ${startByte} to ${endByte - 1} is not that range`,
    );
  }
  return { startByte, endByte: range.lastByte + 1 };
}
