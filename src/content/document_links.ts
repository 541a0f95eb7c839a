import { type Digest, digestIfAny } from "../image/digest.ts";
import { isIndexType, isManifestType } from "../image/media_type.ts";

/** What a document names, all of it in the cache or not: collection follows its `documents`, and keeps its `blobs`. */
export type Links = { readonly documents: readonly Digest[]; readonly blobs: readonly Digest[] };

export const NO_LINKS: Links = { documents: [], blobs: [] };
const UTF8 = new TextDecoder("utf-8", { fatal: true });
const JSON_WHITESPACE = [0x20, 0x09, 0x0a, 0x0d];
const OPENING_BRACE = 0x7b;
/** A document of four MiB cannot be nested deeper than this and mean anything. */
const MAX_NESTING = 32;

/** Every object with a digest that could name a blob of ours. Bytes that are no JSON object name nothing. */
export function linksIn(bytes: Uint8Array): Links {
  const first = bytes.find((byte) => !JSON_WHITESPACE.includes(byte));
  if (first !== OPENING_BRACE) return NO_LINKS;
  let value: unknown;
  try {
    value = JSON.parse(UTF8.decode(bytes));
  } catch {
    return NO_LINKS;
  }
  const documents = new Set<Digest>();
  const blobs = new Set<Digest>();
  const visit = (part: unknown, depth: number): void => {
    if (typeof part !== "object" || part === null || depth > MAX_NESTING) return;
    const digest = "digest" in part ? digestIfAny(part.digest) : undefined;
    if (digest) (isDocument(part) ? documents : blobs).add(digest);
    for (const child of Object.values(part)) visit(child, depth + 1);
  };
  visit(value, 0);
  return { documents: [...documents], blobs: [...blobs] };
}

function isDocument(part: object): boolean {
  const mediaType = "mediaType" in part ? part.mediaType : undefined;
  return typeof mediaType === "string" && (isIndexType(mediaType) || isManifestType(mediaType));
}
