import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { digestAlgorithm, digestOf } from "../image/digest.ts";

/**
 * A stream's chunks as they come, never more bytes than the descriptor says. Ends in order only when they were what it
 * says; whoever keeps them drops them when it does not. The stream is used up or cancelled.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH; what the stream fails with passes
 */
export async function* verifiedChunks(
  { digest, sizeBytes }: Pick<Descriptor, "digest" | "sizeBytes">,
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const algorithm = digestAlgorithm(digest);
  const hash = createHash(algorithm);
  let receivedBytes = 0;
  for await (const chunk of stream) {
    receivedBytes += chunk.length;
    if (receivedBytes > sizeBytes) break;
    hash.update(chunk);
    yield chunk;
  }
  if (receivedBytes !== sizeBytes) {
    const received = receivedBytes > sizeBytes ? `more than ${sizeBytes}` : String(receivedBytes);
    throw new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot verify "${digest}": received ${received} bytes, descriptor says ${sizeBytes} bytes`,
    );
  }
  const actual = digestOf(algorithm, hash.digest("hex"));
  if (actual !== digest) {
    throw new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot verify "${digest}": the ${sizeBytes} bytes received hash to "${actual}"`,
    );
  }
}
