import { ShimError } from "../errors.ts";
import type { FileSystem, SmallStatus } from "../host/file_system.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { verifyBytes } from "../image/verification.ts";
import { blobCorrupt, flawOfOwnBlob, readBlobDocument } from "./blob_file.ts";

/**
 * A small blob of our own cache, whole and verified anew: the disk may have changed since.
 *
 * @throws {ShimError} MANIFEST_TOO_LARGE over 4 MiB; IMAGE_NOT_FOUND; CONTENT_CORRUPT; errno errors pass
 */
export async function readOwnDocument(
  descriptor: Descriptor,
  { path, fileSystem }: { readonly path: string; readonly fileSystem: FileSystem },
): Promise<Uint8Array> {
  const { digest, sizeBytes } = descriptor;
  if (sizeBytes > MAX_DOCUMENT_BYTES) {
    throw new ShimError(
      "MANIFEST_TOO_LARGE",
      `Cannot read "${digest}": it has ${sizeBytes} bytes, limit is ${MAX_DOCUMENT_BYTES} bytes`,
    );
  }
  const flawOf = (status: SmallStatus) => flawOfOwnBlob(status, descriptor);
  const options = { digest, flawOf, fileSystem, maxBytes: MAX_DOCUMENT_BYTES };
  const bytes = await readBlobDocument(path, options) ?? new Uint8Array();
  try {
    verifyBytes(descriptor, bytes);
  } catch (error) {
    throw blobCorrupt(digest, { path, why: "its bytes are not what its name says", cause: error });
  }
  return bytes;
}
