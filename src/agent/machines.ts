import { ShimError } from "../errors.ts";
import type { MachineRecord } from "../machine/machine_record.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import { inspectImage } from "../qemu/qemu_img.ts";
import type { AgentContext } from "./agent_context.ts";
import { findOwnDomain, requireInactive, requireMachine, withLibvirt } from "./domains.ts";
import type { MachineDocument } from "./prepare_document.ts";

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
 * Gives a machine up: its definition in libvirt first, then its folder with disk, NVRAM and logs.
 *
 * @throws {ShimError} MACHINE_NOT_FOUND; IN_USE while a guest runs on it, under libvirt or by hand
 */
export async function releaseMachine(
  context: AgentContext,
  id: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<{ id: string }> {
  const machine = await requireMachine(context, id);
  await undefineIfKnown(context, machine);
  for (const disk of machine.disks) if (!disk.readOnly) await requireUnused(machine, disk.path);
  await context.machines.remove(parseMachineId(id), options);
  return { id };
}

/** A host without libvirt can have no definition; a guest that QEMU runs directly is found by {@link requireUnused}. */
async function undefineIfKnown(context: AgentContext, machine: MachineDocument): Promise<void> {
  try {
    await withLibvirt(context, async (connection) => {
      const status = await findOwnDomain(connection, machine);
      if (!status) return;
      requireInactive(status);
      await connection.undefineDomain(machine.id);
    });
  } catch (error) {
    const isAbsent = error instanceof ShimError &&
      (error.code === "HYPERVISOR_UNAVAILABLE" || error.code === "HYPERVISOR_LIBRARY_MISSING");
    if (!isAbsent) throw error;
    context.note(
      `libvirt does not answer, so a definition of machine "${machine.id}" may be left there: ${error.message}`,
    );
  }
}

/** QEMU locks the disks it writes; qemu-img asks for that lock. */
async function requireUnused(machine: MachineDocument, path: string): Promise<void> {
  try {
    await inspectImage(path, { format: "qcow2" });
  } catch (error) {
    if (!(error instanceof ShimError) || !/\block\b/.test(error.message)) throw error;
    throw new ShimError(
      "IN_USE",
      `Cannot release machine "${machine.id}": a running QEMU holds its disk "${path}"`,
      {
        cause: error,
        details: { id: machine.id, path, remedy: "stop that guest first" },
      },
    );
  }
}
