import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { ShimError } from "../errors.ts";
import { readUpTo, type RegistryResponse, requireIdentityCoding } from "./transport.ts";

const gunzipBytes = promisify(gunzip);

/**
 * A document's bytes as they are stored. Some registries gzip documents although nobody asked; blobs they leave alone.
 *
 * @param maxBytes of what comes, and of what it unpacks to
 * @returns undefined when it is more
 * @throws {ShimError} REGISTRY_PROTOCOL for another coding, or one that is broken
 */
export async function readUncoded(
  response: RegistryResponse,
  { maxBytes, action }: { readonly maxBytes: number; readonly action: string },
): Promise<Uint8Array | undefined> {
  const coding = response.header("content-encoding")?.trim().toLowerCase();
  const isGzip = coding === "gzip" || coding === "x-gzip";
  if (!isGzip) requireIdentityCoding(response, action);
  const bytes = await readUpTo(response.body, maxBytes + 1);
  if (bytes.length > maxBytes) return undefined;
  if (!isGzip) return bytes;
  try {
    return new Uint8Array(await gunzipBytes(bytes, { maxOutputLength: maxBytes }));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE") return undefined;
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the body is not the gzip it is said to be`, {
      cause: error,
    });
  }
}
