import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { FetchOptions, VerifiedDocument } from "../image/image_source.ts";
import { statedDigest } from "./documents.ts";
import { blobPath, manifestPath } from "./endpoint.ts";
import type { OwnRequest, Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, withAttempts } from "./resume.ts";
import type { RegistryResponse } from "./transport.ts";

/** @throws {ShimError} as every answer that is neither yes nor no */
export function hasBlob(
  { endpoint, limits, send }: Repository,
  descriptor: Descriptor,
  options: FetchOptions = {},
): Promise<boolean> {
  const action = `look for blob "${descriptor.digest}" in "${endpoint.name}"`;
  const request = {
    method: "HEAD",
    url: new URL(blobPath(descriptor.digest), endpoint.baseUrl),
    headers: {},
    action,
    signal: options.signal,
  } as const;
  return withAttempts(new Attempts(limits, options), async () => {
    const response = await send(request);
    if (response.status !== 200 && response.status !== 404) throw await responseError(response, action);
    response.discard();
    return response.status === 200;
  });
}

/**
 * Publishes a manifest or index under a name; what it refers to must be there already.
 *
 * @throws {ShimError} CONTENT_DIGEST_MISMATCH when the registry says it stored something else
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests
 */
export async function pushDocument(
  { endpoint, limits, send }: Repository,
  { descriptor, bytes }: VerifiedDocument,
  { tagOrDigest, ...options }: FetchOptions & { readonly tagOrDigest: string },
): Promise<void> {
  const action = `push manifest "${tagOrDigest}" to "${endpoint.name}"`;
  await withAttempts(new Attempts(limits, options), async () => {
    const response = await sendExpecting(201, send, {
      method: "PUT",
      url: new URL(manifestPath(endpoint, tagOrDigest), endpoint.baseUrl),
      headers: { "content-type": descriptor.mediaType },
      body: bytes,
      action,
      signal: options.signal,
    });
    requireSameDigest(response, descriptor, action);
  });
}

/** Uploads are not redirected: a body can be sent once, and to nobody else than the one we meant. */
export async function sendExpecting(
  status: number,
  send: Repository["send"],
  request: OwnRequest,
): Promise<RegistryResponse> {
  const response = await send(request);
  if (response.status !== status) throw await responseError(response, request.action);
  response.discard();
  return response;
}

/** @throws {ShimError} CONTENT_DIGEST_MISMATCH when the registry says it stored something else */
export function requireSameDigest(response: RegistryResponse, { digest }: Descriptor, action: string): void {
  const stated = statedDigest(response, action);
  if (stated !== undefined && stated !== digest) {
    throw new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot ${action}: the registry stored "${stated}", sent "${digest}"`,
    );
  }
}
