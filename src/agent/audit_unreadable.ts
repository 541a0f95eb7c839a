import { ShimError } from "../errors.ts";
import type { AgentContext } from "./agent_context.ts";
import type { OperationOptions } from "./progress.ts";
import type { PulledImage } from "./pull_image.ts";

/**
 * Runs what reads an image's files. When a device reports an error (EIO) on the way, they are hashed anew: of what the
 * device cannot read, or gives wrong, a blob is moved into `quarantine/` and an unpacked disk is removed, so that the next
 * call brings it again instead of failing at the same place for ever. Without such, it was the other file's device.
 *
 * @throws {ShimError} the failure of `body`, saying what was moved away; the details name it as `quarantined`
 */
export async function withUnreadableAudited<T>(
  context: AgentContext,
  { layers, signal }: Pick<PulledImage, "layers"> & Pick<OperationOptions, "signal">,
  body: () => Promise<T>,
): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof ShimError) || error.details["errno"] !== "EIO") throw error;
    const lost: string[] = [];
    const quarantined: string[] = [];
    for (const { descriptor: { digest, sizeBytes } } of layers) {
      try {
        const disk = await context.derived.check(digest, { signal });
        if (disk?.isSound === false) lost.push(disk.why);
        const blob = await context.audit.audit(digest, sizeBytes, { isAnew: true, signal });
        if (blob.state !== "quarantined") continue;
        lost.push(`${blob.why}; it is kept as "${blob.quarantinePath}"`);
        quarantined.push(blob.quarantinePath);
      } catch {
        // Not even that works on this device: the failure itself is the news.
      }
    }
    if (lost.length === 0) throw error;
    throw new ShimError("IO_ERROR", `${error.message}; ${lost.join("; ")}`, {
      cause: error,
      details: {
        ...error.details,
        quarantined,
        remedy: "look at the kernel log (dmesg) and the disk's health; then the same call fetches it again",
      },
    });
  }
}
