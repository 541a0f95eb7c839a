import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { verifyDiskFile } from "../machine/disk_file.ts";
import type { MachineRecord } from "../machine/machine_record.ts";
import type { AgentContext } from "./agent_context.ts";
import type { MachineDocument } from "./prepare_document.ts";

/**
 * Checks that a machine's files still are what its record says, before a guest gets them: its own disks are whole and
 * name no other file than the one recorded; what it reads of the image is there, and is nobody else's to write.
 *
 * @throws {ShimError} CONTENT_CORRUPT, naming the file; BUSY, IO_ERROR
 */
export async function verifyMachine(
  context: AgentContext,
  record: MachineRecord,
  machine: MachineDocument,
): Promise<void> {
  for (const { readOnly, ...disk } of machine.disks) {
    if (!readOnly) await verifyDiskFile(disk, context.machines.fileSystem);
  }
  const paths = new Set(machine.disks.map(({ path, backing }) => backing?.path ?? path));
  for (const use of record.uses) {
    const layer = { ...use, annotations: {} };
    const unpacked = context.derived.pathOf(layer.digest);
    if (paths.has(unpacked)) await requireUnpacked(context, record.id, layer);
    else await requireBlob(context, record.id, layer);
  }
}

async function requireBlob(context: AgentContext, id: string, layer: Descriptor): Promise<void> {
  try {
    const found = await context.audit.audit(layer.digest, layer.sizeBytes);
    if (found.state === "quarantined") {
      throw new ShimError("CONTENT_CORRUPT", `${found.why}; it is kept as "${found.quarantinePath}"`);
    }
    await context.content.locateBlob(layer);
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    if (error.code !== "IMAGE_NOT_FOUND" && error.code !== "CONTENT_CORRUPT") throw error;
    throw damaged(id, { layer, path: context.content.blobPath(layer.digest), cause: error });
  }
}

async function requireUnpacked(context: AgentContext, id: string, layer: Descriptor): Promise<void> {
  if (await context.derived.find(layer)) return;
  const remedy = "prepare the machine again: what it reads is unpacked anew, and its own disk stays";
  throw damaged(id, { layer, path: context.derived.pathOf(layer.digest), remedy });
}

function damaged(
  id: string,
  { layer, path, cause, remedy = "pull the image again; the machine's own disk stays" }: {
    readonly layer: Descriptor;
    readonly path: string;
    readonly cause?: unknown;
    readonly remedy?: string;
  },
): ShimError {
  const why = cause instanceof Error ? `: ${cause.message}` : ", which is missing or was changed";
  return new ShimError(
    "CONTENT_CORRUPT",
    `Cannot start machine "${id}": it reads layer "${layer.digest}"${why}`,
    {
      cause,
      details: {
        id,
        path,
        digest: layer.digest,
        remedy,
      },
    },
  );
}
