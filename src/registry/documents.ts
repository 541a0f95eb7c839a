import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import type { FetchOptions, VerifiedDocument } from "../image/image_source.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { DOCUMENT_TYPES } from "../image/media_type.ts";
import { hashBytes, verifyBytes } from "../image/verification.ts";
import { digestIn, manifestPath } from "./endpoint.ts";
import { withNextPlace } from "./next_place.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, withAttempts } from "./resume.ts";
import { contentLength, type RegistryResponse } from "./transport.ts";
import { readUncoded } from "./uncoded_body.ts";

type ReceivedDocument = { readonly mediaType: string; readonly bytes: Uint8Array };

/**
 * One GET decides: asking with HEAD first would let a tag move in between.
 *
 * @throws {ShimError} see `ImageSource.resolve`; MEDIA_TYPE_UNSUPPORTED, MANIFEST_TOO_LARGE, CONTENT_DIGEST_MISMATCH
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
 */
export async function resolveDocument(
  repository: Repository,
  tagOrDigest: string,
  options: FetchOptions = {},
): Promise<VerifiedDocument> {
  const wanted = digestIn(tagOrDigest);
  const { mediaType, bytes } = await getDocument(repository, tagOrDigest, {
    ...options,
    verify: ({ bytes }) => {
      if (wanted !== undefined) verifyBytes({ digest: wanted, sizeBytes: bytes.length }, bytes);
    },
  });
  const sizeBytes = bytes.length;
  return { descriptor: { mediaType, digest: wanted ?? hashBytes(bytes), sizeBytes, annotations: {} }, bytes };
}

/** @throws {ShimError} see `ImageSource.fetchDocument`; MEDIA_TYPE_UNSUPPORTED when it is served as another type */
export async function fetchDocument(
  repository: Repository,
  descriptor: Descriptor,
  options: FetchOptions = {},
): Promise<VerifiedDocument> {
  if (descriptor.sizeBytes > MAX_DOCUMENT_BYTES) throw tooLarge(actionOf(repository, descriptor.digest));
  const { bytes } = await getDocument(repository, descriptor.digest, {
    ...options,
    verify: ({ mediaType, bytes }) => {
      verifyBytes(descriptor, bytes);
      if (mediaType === descriptor.mediaType) return;
      throw new ShimError(
        "MEDIA_TYPE_UNSUPPORTED",
        `Cannot ${
          actionOf(repository, descriptor.digest)
        }: served as "${mediaType}", descriptor says "${descriptor.mediaType}"`,
      );
    },
  });
  return { descriptor, bytes };
}

function getDocument(
  repository: Repository,
  tagOrDigest: string,
  { verify, ...options }: FetchOptions & { readonly verify: (received: ReceivedDocument) => void },
): Promise<ReceivedDocument> {
  const action = actionOf(repository, tagOrDigest);
  const request = {
    method: "GET",
    path: manifestPath(repository.endpoint, tagOrDigest),
    headers: { accept: DOCUMENT_TYPES.join(", ") },
    action,
    signal: options.signal,
  } as const;
  const read = async () => {
    const response = await repository.fetch(request);
    try {
      if (response.status !== 200) throw await responseError(response, action);
      const received = await readDocument(response, { repository, action });
      verify(received);
      return received;
    } finally {
      response.discard();
    }
  };
  const attempts = new Attempts(repository.limits, options);
  return withAttempts(attempts, () => withNextPlace(repository, request, read));
}

async function readDocument(
  response: RegistryResponse,
  { repository, action }: { readonly repository: Repository; readonly action: string },
): Promise<ReceivedDocument> {
  const mediaType = requireDocumentType(response, action);
  if ((contentLength(response, action) ?? 0) > MAX_DOCUMENT_BYTES) throw tooLarge(action);
  const bytes = await readUncoded(response, { maxBytes: MAX_DOCUMENT_BYTES, action });
  if (bytes === undefined) throw tooLarge(action);
  requireStatedDigest(response, { bytes, action, repository });
  return { mediaType, bytes };
}

function requireDocumentType(response: RegistryResponse, action: string): string {
  const contentType = response.header("content-type") ?? "";
  const mediaType = contentType.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  if (DOCUMENT_TYPES.includes(mediaType)) return mediaType;
  throw new ShimError(
    "MEDIA_TYPE_UNSUPPORTED",
    `Cannot ${action}: the answer is ${
      JSON.stringify(contentType.slice(0, 100))
    }, expected an image manifest or index`,
    { details: { remedy: "check that the host is a registry, and that the tag names an image" } },
  );
}

/** The header is a hint that may only agree: the digest is what the bytes hash to, also where it may be wrong. */
function requireStatedDigest(
  response: RegistryResponse,
  { bytes, action, repository }: {
    readonly bytes: Uint8Array;
    readonly action: string;
    readonly repository: Repository;
  },
): void {
  try {
    const stated = statedDigest(response, action);
    if (stated !== undefined) verifyBytes({ digest: stated, sizeBytes: bytes.length }, bytes);
  } catch (error) {
    if (!repository.ignoresDigestHeader) throw error;
    repository.shared.warnings.tellOnce(
      `the Docker-Content-Digest of "${repository.endpoint.name}" is wrong, and is ignored as configured`,
    );
  }
}

/** @throws {ShimError} REGISTRY_PROTOCOL when the header is there and no digest */
export function statedDigest(response: RegistryResponse, action: string): Digest | undefined {
  const value = response.header("docker-content-digest");
  if (value === undefined) return undefined;
  try {
    return parseDigest(value);
  } catch (error) {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: Docker-Content-Digest is not a digest`, {
      cause: error,
    });
  }
}

function tooLarge(action: string): ShimError {
  return new ShimError("MANIFEST_TOO_LARGE", `Cannot ${action}: it is over ${MAX_DOCUMENT_BYTES} bytes`);
}

function actionOf({ endpoint }: Repository, tagOrDigest: string): string {
  return `fetch manifest "${tagOrDigest}" of "${endpoint.name}"`;
}
