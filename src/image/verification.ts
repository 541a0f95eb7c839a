import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import { type Digest, digestAlgorithm, digestEncoded, digestOf } from "./digest.ts";

/** The sha256 digest of bytes: the identity of what came by a tag. */
export function hashBytes(bytes: Uint8Array): Digest {
  return digestOf("sha256", createHash("sha256").update(bytes).digest("hex"));
}

/**
 * Returns only when `bytes` are what `descriptor` names. Size goes first: it costs nothing, and hashing does.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#verification
 */
export function verifyBytes(descriptor: Pick<Descriptor, "digest" | "sizeBytes">, bytes: Uint8Array): void {
  const { digest, sizeBytes } = descriptor;
  if (bytes.length !== sizeBytes) {
    throw new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot verify "${digest}": received ${bytes.length} bytes, descriptor says ${sizeBytes} bytes`,
    );
  }
  const algorithm = digestAlgorithm(digest);
  const encoded = createHash(algorithm).update(bytes).digest("hex");
  if (encoded !== digestEncoded(digest)) {
    throw new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot verify "${digest}": the ${bytes.length} bytes received hash to "${algorithm}:${encoded}"`,
    );
  }
}
