import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { FetchOptions } from "../image/image_source.ts";
import { parseContentRange } from "./content_range.ts";
import { blobPath } from "./endpoint.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, withAttempts } from "./resume.ts";
import { readUpTo, type RegistryResponse, requireIdentityCoding } from "./transport.ts";

/**
 * A blob's first bytes, NOT verified. A registry that ignores ranges is asked all the same: reading stops after
 * `lengthBytes`, and the connection is given up.
 *
 * @throws {ShimError} REGISTRY_NOT_FOUND and its like
 */
export async function readHead(
  repository: Repository,
  descriptor: Descriptor,
  { lengthBytes, ...options }: FetchOptions & { readonly lengthBytes: number },
): Promise<Uint8Array> {
  const length = Math.min(lengthBytes, descriptor.sizeBytes);
  if (length === 0) return new Uint8Array();
  const action = `look at blob "${descriptor.digest}" of "${repository.endpoint.name}"`;
  return await withAttempts(new Attempts(repository.limits, options), async () => {
    const response = await repository.fetch({
      method: "GET",
      path: blobPath(descriptor.digest),
      headers: { range: `bytes=0-${length - 1}` },
      action,
      signal: options.signal,
    });
    try {
      return await readStart(response, { length, sizeBytes: descriptor.sizeBytes, action });
    } finally {
      response.discard();
    }
  });
}

async function readStart(
  response: RegistryResponse,
  { length, sizeBytes, action }: {
    readonly length: number;
    readonly sizeBytes: number;
    readonly action: string;
  },
): Promise<Uint8Array> {
  if (response.status !== 200 && response.status !== 206) throw await responseError(response, action);
  requireIdentityCoding(response, action);
  const isOtherRange = response.status === 206 &&
    parseContentRange(response.header("content-range"), { firstByte: 0, sizeBytes }) === undefined;
  if (isOtherRange) {
    throw new ShimError(
      "REGISTRY_PROTOCOL",
      `Cannot ${action}: the answer to a request for its first ${length} bytes is another range`,
    );
  }
  return await readUpTo(response.body, length);
}
