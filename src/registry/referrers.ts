import { z } from "zod";
import { ShimError, toShimError } from "../errors.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import type { FetchOptions } from "../image/image_source.ts";
import { OCI_INDEX } from "../image/media_type.ts";
import { type Page, readPages } from "./listing.ts";
import type { Repository } from "./repository.ts";

const MAX_REFERRERS = 10_000;

/** Something that a repository keeps beside an image: a signature, a bill of materials. Nothing of it is verified. */
export type Referrer = {
  /** What it is; of older ones the media type tells. */
  readonly artifactType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
};

export type ReferrersOptions = FetchOptions & {
  /** Only those of this type. */
  readonly artifactType?: string;
};

const referrerJson = z.object({
  mediaType: z.string(),
  digest: z.string(),
  size: z.int().min(0),
  artifactType: z.string().nullish(),
});
const referrerList = z.object({ manifests: z.array(referrerJson).nullish() });

/**
 * What refers to a manifest. A registry that has no such list keeps it under a tag made of the digest.
 *
 * @throws {ShimError} REGISTRY_PROTOCOL when it is no list of referrers; LIMIT_EXCEEDED over 10,000; what
 *   {@link readPages} throws
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers
 */
export async function listReferrers(
  repository: Repository,
  digest: Digest,
  { artifactType, signal }: ReferrersOptions = {},
): Promise<readonly Referrer[]> {
  const action = `list what refers to "${digest}" in "${repository.endpoint.name}"`;
  const request = { accept: OCI_INDEX, action, signal };
  const referrers =
    await readReferrers(readPages(repository, { ...request, path: `referrers/${digest}` }), action) ??
      await readReferrers(
        readPages(repository, { ...request, path: `manifests/${tagOf(digest)}` }),
        action,
      ) ??
      [];
  // Registries may filter, and need not.
  return referrers.filter((each) => artifactType === undefined || each.artifactType === artifactType);
}

/** @returns undefined when there is no such list */
async function readReferrers(
  pages: AsyncIterable<Page>,
  action: string,
): Promise<Referrer[] | undefined> {
  const referrers: Referrer[] = [];
  try {
    for await (const { value, contentType } of pages) {
      // Whoever took the tag for something else has said nothing of referrers.
      if (contentType !== OCI_INDEX) return undefined;
      referrers.push(...parsePage(value, action));
      if (referrers.length > MAX_REFERRERS) {
        throw new ShimError("LIMIT_EXCEEDED", `Cannot ${action}: there are over ${MAX_REFERRERS}`);
      }
    }
  } catch (error) {
    if (toShimError(error).code === "REGISTRY_NOT_FOUND") return undefined;
    throw error;
  }
  return referrers;
}

function parsePage(value: unknown, action: string): readonly Referrer[] {
  try {
    return (referrerList.parse(value).manifests ?? []).map((each) => ({
      artifactType: each.artifactType || each.mediaType,
      digest: parseDigest(each.digest),
      sizeBytes: each.size,
    }));
  } catch (error) {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the answer is not a list of referrers`, {
      cause: error,
    });
  }
}

/** distribution-spec v1.1.1, "Referrers Tag Schema". */
function tagOf(digest: Digest): string {
  const [algorithm = "", encoded = ""] = digest.split(":");
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`;
}
