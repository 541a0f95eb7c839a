import type { CacheUser } from "../content/cache_survey.ts";
import { ShimError } from "../errors.ts";
import { type Digest, digestOf } from "../image/digest.ts";
import type { MachineStore } from "../machine/machine_store.ts";

/** A blob or an unpacked disk as machines' documents name it, in a field or within a command's argument. */
const CACHE_PATH = /\/(?:blobs|derived)\/(sha256|sha512)\/([a-f0-9]{128}|[a-f0-9]{64})(?![a-f0-9])/g;

/**
 * The machines, as users of the cache: each needs what it was made from, and whatever of the cache its document names.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID when a machine's record cannot be read: nobody knows what it needs
 */
export async function cacheUsers(machines: MachineStore): Promise<CacheUser[]> {
  const { machines: records, unreadable } = await machines.list();
  const [first] = unreadable;
  if (first) {
    throw new ShimError(
      "CACHE_LAYOUT_INVALID",
      `Cannot tell what machine "${first.id}" needs: ${first.error.message}`,
      { cause: first.error, details: { remedy: `repair its record, or: bootshim release ${first.id}` } },
    );
  }
  return records.map(({ id, digest, manifestDigest, uses, document }) => ({
    id,
    manifestDigest,
    needs: uses.map((use) => use.digest),
    digests: [digest, ...digestsNamedIn(document)],
  }));
}

function digestsNamedIn(document: unknown): Digest[] {
  const text = JSON.stringify(document) ?? "";
  return Array.from(text.matchAll(CACHE_PATH)).flatMap(([, algorithm, encoded = ""]) => {
    if (algorithm === "sha256" && encoded.length === 64) return [digestOf("sha256", encoded)];
    return algorithm === "sha512" && encoded.length === 128 ? [digestOf("sha512", encoded)] : [];
  });
}
