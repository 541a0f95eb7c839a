import { createReadStream } from "node:fs";
import { ShimError } from "../errors.ts";

/**
 * A small file that an option names; also a pipe, as shells make of `<(…)`, so that a secret need not be on disk.
 *
 * @throws {ShimError} REQUEST_INVALID when it cannot be read; LIMIT_EXCEEDED
 */
export async function readUserFile(
  path: string,
  { option, maxBytes }: { readonly option: string; readonly maxBytes: number },
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of createReadStream(path)) {
      const bytes: Uint8Array = chunk;
      chunks.push(bytes);
      sizeBytes += bytes.length;
      if (sizeBytes > maxBytes) break;
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError("REQUEST_INVALID", `Cannot read ${option} "${path}": ${why}`, { cause: error });
  }
  if (sizeBytes <= maxBytes) return new Uint8Array(Buffer.concat(chunks));
  throw new ShimError("LIMIT_EXCEEDED", `Cannot use ${option} "${path}": limit is ${maxBytes} bytes`);
}
