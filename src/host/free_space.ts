import { ShimError } from "../errors.ts";
import type { FileSystem } from "./file_system.ts";

export type FreeSpaceOptions = {
  readonly sizeBytes: number;
  /** Completes "Cannot …" in the error. */
  readonly action: string;
  readonly fileSystem: FileSystem;
};

/**
 * Refuses early what cannot end well. A promise of nothing: others write to the same disk, so ENOSPC later is
 * still possible. Rejects with an errno error when the file system cannot be asked.
 *
 * @throws {ShimError} NO_SPACE with both numbers
 */
export async function requireFreeSpace(path: string, options: FreeSpaceOptions): Promise<void> {
  const { sizeBytes, action, fileSystem } = options;
  const availableBytes = await fileSystem.availableBytes(path);
  if (availableBytes >= sizeBytes) return;
  throw new ShimError(
    "NO_SPACE",
    `Cannot ${action}: ${availableBytes} bytes are free at "${path}", ${sizeBytes} bytes are needed`,
    {
      details: {
        remedy: "free space there, or choose another --root",
        path,
        availableBytes,
        neededBytes: sizeBytes,
      },
    },
  );
}
