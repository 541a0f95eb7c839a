import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { FetchOptions, OpenContent, VerifiedDocument } from "../image/image_source.ts";
import { statedDigest } from "./documents.ts";
import { blobUrl, manifestUrl, uploadsUrl } from "./endpoint.ts";
import { redirectTarget, sendFollowing } from "./redirect.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, withAttempts } from "./resume.ts";
import type { RegistryRequest, RegistryResponse, Transport } from "./transport.ts";

/** @throws {ShimError} as every answer that is neither yes nor no */
export function hasBlob(
  { endpoint, transport, limits }: Repository,
  descriptor: Descriptor,
  { signal }: FetchOptions = {},
): Promise<boolean> {
  const action = `look for blob "${descriptor.digest}" in "${endpoint.name}"`;
  const request = {
    method: "HEAD",
    url: blobUrl(endpoint, descriptor.digest),
    headers: {},
    action,
    signal,
  } as const;
  return withAttempts(new Attempts(limits, signal), async () => {
    const response = await sendFollowing(transport, request);
    if (response.status !== 200 && response.status !== 404) throw await responseError(response, action);
    response.discard();
    return response.status === 200;
  });
}

/**
 * Uploads in one piece. When this resolves the registry has the blob and has checked its digest; a failed transfer
 * leaves nothing visible and starts anew.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH when `openContent` gives more or fewer bytes than the descriptor says
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#post-then-put
 */
export async function pushBlob(
  { endpoint, transport, limits }: Repository,
  descriptor: Descriptor,
  { openContent, signal }: FetchOptions & { readonly openContent: OpenContent },
): Promise<void> {
  const action = `push blob "${descriptor.digest}" to "${endpoint.name}"`;
  await withAttempts(new Attempts(limits, signal), async () => {
    const started = await sendExpecting(202, transport, {
      method: "POST",
      url: uploadsUrl(endpoint),
      headers: { "content-length": "0" },
      action,
      signal,
    });
    const url = withDigest(redirectTarget(started, action), descriptor.digest);
    const reader = (await openContent()).getReader();
    try {
      const finished = await sendExpecting(201, transport, {
        method: "PUT",
        url,
        headers: {
          "content-type": "application/octet-stream",
          "content-length": String(descriptor.sizeBytes),
        },
        body: exactly(descriptor, reader, action),
        headersTimeoutMs: limits.commitTimeoutMs,
        action,
        signal,
      });
      requireSameDigest(finished, descriptor, action);
    } finally {
      // Also ends a read that is still under way. A source that failed has ended the upload with its error already.
      await reader.cancel().catch(() => {});
    }
  });
}

/**
 * Publishes a manifest or index under a name; what it refers to must be there already.
 *
 * @throws {ShimError} CONTENT_DIGEST_MISMATCH when the registry says it stored something else
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests
 */
export async function pushDocument(
  { endpoint, transport, limits }: Repository,
  { descriptor, bytes }: VerifiedDocument,
  { tagOrDigest, signal }: FetchOptions & { readonly tagOrDigest: string },
): Promise<void> {
  const action = `push manifest "${tagOrDigest}" to "${endpoint.name}"`;
  await withAttempts(new Attempts(limits, signal), async () => {
    const response = await sendExpecting(201, transport, {
      method: "PUT",
      url: manifestUrl(endpoint, tagOrDigest),
      headers: { "content-type": descriptor.mediaType },
      body: bytes,
      action,
      signal,
    });
    requireSameDigest(response, descriptor, action);
  });
}

/** Uploads are not redirected: a body can be sent once, and to nobody else than the one we meant. */
async function sendExpecting(
  status: number,
  transport: Transport,
  request: RegistryRequest,
): Promise<RegistryResponse> {
  const response = await transport.send(request);
  if (response.status !== status) throw await responseError(response, request.action);
  response.discard();
  return response;
}

function requireSameDigest(response: RegistryResponse, { digest }: Descriptor, action: string): void {
  const stated = statedDigest(response, action);
  if (stated !== undefined && stated !== digest) {
    throw new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot ${action}: the registry stored "${stated}", sent "${digest}"`,
    );
  }
}

/** By hand: `searchParams` would write the registry's own parameters anew, and they are not ours to touch. */
function withDigest(url: URL, digest: Digest): URL {
  const target = new URL(url);
  target.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return target;
}

/** Ends the upload when the source is not what the descriptor says, before the registry has all of a wrong blob. */
async function* exactly(
  { digest, sizeBytes }: Descriptor,
  content: ReadableStreamDefaultReader<Uint8Array>,
  action: string,
): AsyncGenerator<Uint8Array> {
  let sentBytes = 0;
  for (;;) {
    const { done, value } = await content.read();
    if (done) break;
    sentBytes += value.length;
    if (sentBytes > sizeBytes) break;
    yield value;
  }
  if (sentBytes === sizeBytes) return;
  const relation = sentBytes > sizeBytes ? "over" : `only ${sentBytes} of`;
  throw new ShimError(
    "CONTENT_SIZE_MISMATCH",
    `Cannot ${action}: "${digest}" has ${relation} the ${sizeBytes} bytes its descriptor says`,
  );
}
