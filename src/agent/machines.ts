import { ShimError } from "../errors.ts";
import type { MachineRecord } from "../machine/machine_record.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import type { AgentContext } from "./agent_context.ts";
import { type DomainReport, findOwnDomain, requireInactive, requireMachine, withLibvirt } from "./domains.ts";
import { requireUnused } from "./machine_use.ts";
import type { MachineDocument } from "./prepare_document.ts";
import { documentOf } from "./prepare_machine.ts";

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
  return machines.map((record) => listed(context, record));
}

function listed(context: AgentContext, record: MachineRecord): ListedMachine {
  const { id, uuid, reference, digest, manifestDigest, architecture, createdAt } = record;
  const directory = context.machines.directoryOf(parseMachineId(id));
  return { id, uuid, reference, digest, manifestDigest, architecture, createdAt, directory };
}

export type ShownMachine = ListedMachine & {
  /** What was asked for when it was prepared. */
  readonly wishes: MachineRecord["wishes"];
  readonly machine: MachineDocument;
  /** In libvirt's words; `undefined`: libvirt does not know it; null: libvirt does not answer. */
  readonly state: DomainReport["state"] | null;
};

/** Everything about one machine. @throws {ShimError} REQUEST_INVALID, MACHINE_NOT_FOUND, CACHE_LAYOUT_INVALID */
export async function showMachine(context: AgentContext, id: string): Promise<ShownMachine> {
  const record = await context.machines.read(parseMachineId(id));
  const machine = documentOf(record);
  return {
    ...listed(context, record),
    wishes: record.wishes,
    machine,
    state: await stateOf(context, machine),
  };
}

async function stateOf(context: AgentContext, machine: MachineDocument): Promise<ShownMachine["state"]> {
  try {
    return await withLibvirt(
      context,
      async (connection) => (await findOwnDomain(connection, machine))?.state ?? "undefined",
    );
  } catch (error) {
    if (!(error instanceof ShimError) || error.code === "CANCELLED") throw error;
    context.note(`libvirt does not tell its state: ${error.message}`);
    return null;
  }
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
  // One that is not there costs no lock file; and whoever runs it may hold it as long as it runs.
  const before = await readUnlessDamaged(context, id, () => {});
  await requireUnused(context, { id, uuid: before?.uuid ?? null, action: "release" });
  return await context.machines.hold(machineId, async (held) => {
    const machine = await readUnlessDamaged(context, id, context.note);
    await undefineIfKnown(context, { id, machine, signal: options.signal });
    await held.remove();
    return { id };
  }, options);
}

/** Null for a machine that is there, but whose record cannot be read. */
async function readUnlessDamaged(
  context: AgentContext,
  id: string,
  note: (message: string) => void,
): Promise<MachineDocument | null> {
  try {
    return await requireMachine(context, id);
  } catch (error) {
    if (!(error instanceof ShimError) || error.code !== "CACHE_LAYOUT_INVALID") throw error;
    note(error.message);
    return null;
  }
}

type Known = {
  readonly id: string;
  readonly machine: MachineDocument | null;
  readonly signal: AbortSignal | undefined;
};

/** A host without libvirt can have no definition; a guest that QEMU runs without it is found all the same. */
async function undefineIfKnown(context: AgentContext, { id, machine, signal }: Known): Promise<void> {
  try {
    await withLibvirt(context, async (connection) => {
      // Without a record nobody knows whose the domain of that name is: it may hold the folder, but is not ours to undefine.
      const status = machine ? await findOwnDomain(connection, machine) : await connection.findDomain(id);
      if (status) requireInactive(status);
      await requireUnused(context, { id, uuid: machine?.uuid ?? null, action: "release" });
      if (status && machine) await connection.undefineDomain(id);
    }, { signal });
  } catch (error) {
    const isAbsent = error instanceof ShimError &&
      (error.code === "HYPERVISOR_UNAVAILABLE" || error.code === "HYPERVISOR_LIBRARY_MISSING");
    if (!isAbsent) throw error;
    await requireUnused(context, { id, uuid: machine?.uuid ?? null, action: "release" });
    context.note(
      `libvirt does not answer, so a definition of machine "${id}" may be left there: ${error.message}`,
    );
  }
}
