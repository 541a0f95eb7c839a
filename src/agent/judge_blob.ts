import { GATE_EDITION, type JudgedDisk, judgeDisk } from "../boot/judge_disk.ts";
import type { RoleLayer } from "../boot/prepared_boot.ts";
import type { AgentContext } from "./agent_context.ts";

/** What the gate found a cached layer to be before, if its file is the same since. Reads nothing of the layer. */
export async function knownDisk(context: AgentContext, layer: RoleLayer): Promise<JudgedDisk | undefined> {
  return await context.audit.findDisk(layer.descriptor.digest, questionOf(layer));
}

/**
 * Asks the gate about a cached layer that is a disk as it is, not a packed one; once for all who prepare it.
 *
 * @throws {ShimError} as `judgeDisk`; BUSY, IO_ERROR
 */
export async function judgeBlob(context: AgentContext, layer: RoleLayer): Promise<JudgedDisk> {
  const { role, descriptor } = layer;
  const known = await knownDisk(context, layer);
  if (known) return known;
  const file = context.content.blobWindow(descriptor);
  const { mediaType, digest } = descriptor;
  return await context.audit.judge(
    digest,
    questionOf(layer),
    () => judgeDisk(file, { mediaType, layer: role }),
  );
}

function questionOf({ role, descriptor: { mediaType } }: RoleLayer) {
  return { edition: GATE_EDITION, role, mediaType };
}
