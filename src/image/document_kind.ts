import { ShimError } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";

/**
 * Refuses a document that is of the other kind than it was offered as: a manifest lists layers, an index manifests. One
 * that lists both is left to the schemas, which refuse it as ambiguous.
 *
 * @param json any JSON value
 * @throws {ShimError} MEDIA_TYPE_UNSUPPORTED
 */
export function requireKind(json: unknown, kind: "index" | "manifest", descriptor: Descriptor): void {
  if (typeof json !== "object" || json === null) return;
  const has = (key: string) => Object.hasOwn(json, key);
  const isOther = kind === "index"
    ? has("layers") && !has("manifests")
    : has("manifests") && !has("layers") && !has("config");
  if (!isOther) return;
  const [wanted, found] = kind === "index"
    ? ["image index", "an image manifest"]
    : ["image manifest", "an image index"];
  throw new ShimError(
    "MEDIA_TYPE_UNSUPPORTED",
    `Cannot read ${wanted} "${descriptor.digest}": it is ${found}, but was offered as "${descriptor.mediaType}"`,
  );
}

/**
 * image-spec: a body's own media type, when it states one, is the one it was fetched as.
 *
 * @param what names the document in the error
 * @throws {ShimError} MANIFEST_INVALID
 */
export function requireSameMediaType(stated: string | undefined, descriptor: Descriptor, what: string): void {
  if (stated === undefined || stated === descriptor.mediaType) return;
  throw new ShimError(
    "MANIFEST_INVALID",
    `Cannot read ${what}: it states media type ${JSON.stringify(stated.slice(0, 100))}, ` +
      `but was offered as "${descriptor.mediaType}"`,
  );
}
