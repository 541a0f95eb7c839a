import { ShimError } from "../errors.ts";
import type { MachineRecord } from "../machine/machine_record.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import { inspectImage } from "../qemu/qemu_img.ts";
import type { AgentContext } from "./agent_context.ts";
import { findOwnDomain, requireInactive, requireMachine, withLibvirt } from "./domains.ts";
import type { MachineDisk, MachineDocument } from "./prepare_document.ts";

export type ListedMachine =
  & Pick<
    MachineRecord,
    "id" | "uuid" | "reference" | "digest" | "manifestDigest" | "architecture" | "createdAt"
  >
  & { readonly directory: string };

/** The prepared machines, by id. A damaged one is noted and does not hide the others. */
export async function listMachines(context: AgentContext): Promise<ListedMachine[]> {
  const { machines, unreadable } = await context.machines.list();
  for (const { error } of unreadable) context.note(error.message);
  return machines.map(({ id, uuid, reference, digest, manifestDigest, architecture, createdAt }) => ({
    id,
    uuid,
    reference,
    digest,
    manifestDigest,
    architecture,
    createdAt,
    directory: context.machines.directoryOf(parseMachineId(id)),
  }));
}

/**
 * Gives a machine up: its definition in libvirt first, then its folder with disk, NVRAM and logs. A machine whose record
 * or disk is damaged can be given up, too.
 *
 * @throws {ShimError} MACHINE_NOT_FOUND; IN_USE while a guest runs on it, under libvirt or with its disk open
 */
export async function releaseMachine(
  context: AgentContext,
  id: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<{ id: string }> {
  const machineId = parseMachineId(id);
  const machine = await readUnlessDamaged(context, id);
  await undefineIfKnown(context, { id, machine });
  for (const disk of machine?.disks ?? []) if (!disk.readOnly) await requireUnused(id, disk);
  await context.machines.remove(machineId, options);
  return { id };
}

/** Null for a machine that is there, but whose record cannot be read. */
async function readUnlessDamaged(context: AgentContext, id: string): Promise<MachineDocument | null> {
  try {
    return await requireMachine(context, id);
  } catch (error) {
    if (!(error instanceof ShimError) || error.code !== "CACHE_LAYOUT_INVALID") throw error;
    context.note(error.message);
    return null;
  }
}

type Known = { readonly id: string; readonly machine: MachineDocument | null };

/** A host without libvirt can have no definition; a guest that QEMU runs directly is found by {@link requireUnused}. */
async function undefineIfKnown(context: AgentContext, { id, machine }: Known): Promise<void> {
  try {
    await withLibvirt(context, async (connection) => {
      // Without a record nobody knows whose the domain of that name is: it may hold the folder, but is not ours to undefine.
      const status = machine ? await findOwnDomain(connection, machine) : await connection.findDomain(id);
      if (!status) return;
      requireInactive(status);
      if (machine) await connection.undefineDomain(id);
    });
  } catch (error) {
    const isAbsent = error instanceof ShimError &&
      (error.code === "HYPERVISOR_UNAVAILABLE" || error.code === "HYPERVISOR_LIBRARY_MISSING");
    if (!isAbsent) throw error;
    context.note(
      `libvirt does not answer, so a definition of machine "${id}" may be left there: ${error.message}`,
    );
  }
}

/** QEMU locks the disks it writes; qemu-img asks for that lock. A disk that is missing or broken is in nobody's use. */
async function requireUnused(id: string, { path, format }: MachineDisk): Promise<void> {
  try {
    await inspectImage(path, { format });
  } catch (error) {
    if (!(error instanceof ShimError) || error.code !== "QEMU_FAILED") throw error;
    if (!/Failed to get (?:shared )?"\w[\w ]*" lock/.test(error.message)) return;
    throw new ShimError("IN_USE", `Cannot release machine "${id}": a running QEMU holds its disk "${path}"`, {
      cause: error,
      details: { id, path, remedy: "stop that guest first" },
    });
  }
}
