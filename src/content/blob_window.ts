import type { ByteWindow } from "../boot/byte_window.ts";
import { ShimError } from "../errors.ts";
import type { OpenFile } from "../host/file_system.ts";
import type { Descriptor } from "../image/descriptor.ts";

/** One read takes no more than this, so that a recogniser cannot fill the memory. */
const MAX_WINDOW_BYTES = 4 * 1024 * 1024;

/**
 * A window onto a blob for the format recognisers. Each read opens the blob anew, so there is nothing to close.
 *
 * A read throws {ShimError} LIMIT_EXCEEDED over 4 MiB, and whatever `withBlob` throws.
 */
export function blobWindow(
  { digest, sizeBytes }: Descriptor,
  withBlob: (body: (file: OpenFile) => Promise<Uint8Array>) => Promise<Uint8Array>,
): ByteWindow {
  return {
    sizeBytes,
    read: async (offsetBytes, lengthBytes) => {
      const length = Math.max(0, Math.min(lengthBytes, sizeBytes - offsetBytes));
      if (length > MAX_WINDOW_BYTES) {
        throw new ShimError(
          "LIMIT_EXCEEDED",
          `Cannot read ${length} bytes of blob "${digest}" at once: limit is ${MAX_WINDOW_BYTES} bytes`,
        );
      }
      return await withBlob(async (file) => {
        const buffer = new Uint8Array(length);
        return buffer.subarray(0, await file.read(buffer, offsetBytes));
      });
    },
  };
}
