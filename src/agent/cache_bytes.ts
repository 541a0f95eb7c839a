import { statusIfThere } from "../host/durable.ts";
import { nodeFileSystem } from "../host/file_system.ts";
import { withIoErrors } from "../host/io_error.ts";
import type { AgentContext } from "./agent_context.ts";

/**
 * What the images' blobs take on disk. One after the other, so that a large cache keeps nothing else waiting.
 *
 * @throws {ShimError} BUSY, IO_ERROR
 */
export async function cacheBytes(
  { audit, content }: Pick<AgentContext, "audit" | "content">,
): Promise<number> {
  let sizeBytes = 0;
  for (const digest of await audit.list()) {
    const path = content.blobPath(digest);
    const status = await withIoErrors(
      { action: "measure the cache", path },
      () => statusIfThere(path, nodeFileSystem),
    );
    sizeBytes += status?.allocatedBytes ?? 0;
  }
  return sizeBytes;
}
