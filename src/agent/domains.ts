import { readFile } from "node:fs/promises";
import { ShimError } from "../errors.ts";
import { toIoError } from "../host/io_error.ts";
import { LibvirtConnection } from "../libvirt/connection.ts";
import type { DomainControl } from "../libvirt/domain_control.ts";
import type { DomainStatus } from "../libvirt/domain_status.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import type { MachineRecord } from "../machine/machine_record.ts";
import type { AgentContext } from "./agent_context.ts";
import { ensureDefined } from "./ensure_defined.ts";
import { requireUnused } from "./machine_use.ts";
import { documentOf } from "./prepare_machine.ts";
import type { MachineDocument } from "./prepare_document.ts";
import { startDomain } from "./start_domain.ts";
import { verifyMachine } from "./verify_machine.ts";

/** What libvirt says of a machine, in virsh's words; `undefined` is ours for "libvirt does not know it". */
export type DomainReport = {
  readonly id: string;
  readonly uuid: string;
  readonly state: DomainStatus["state"] | "undefined";
};

/** The machine of that id, as it was prepared. @throws {ShimError} REQUEST_INVALID, MACHINE_NOT_FOUND, CACHE_LAYOUT_INVALID */
export async function requireMachine(context: AgentContext, id: string): Promise<MachineDocument> {
  return documentOf(await context.machines.read(parseMachineId(id)));
}

/** Runs `body` with the service's session, or with a connection that is closed whatever happens. */
export async function withLibvirt<T>(
  context: AgentContext,
  body: (connection: DomainControl) => Promise<T>,
  { signal }: VerbOptions = {},
): Promise<T> {
  if (context.libvirtSession !== undefined) return await body(context.libvirtSession);
  const connection = await LibvirtConnection.open(context.libvirtUri, { signal });
  try {
    return await body(connection);
  } finally {
    await connection.close();
  }
}

/**
 * The domain of a machine, or null. A domain of the same name that is not this machine's is nobody's business of ours.
 *
 * @throws {ShimError} CONFLICT
 */
export async function findOwnDomain(
  connection: DomainControl,
  machine: MachineDocument,
): Promise<DomainStatus | null> {
  const status = await connection.findDomain(machine.id);
  if (status && status.uuid !== machine.uuid) {
    throw new ShimError(
      "CONFLICT",
      `Cannot use domain "${machine.id}": libvirt's has UUID ${status.uuid}, the machine has ${machine.uuid}`,
      {
        details: {
          id: machine.id,
          remedy: "a domain that bootshim did not define has that name: rename one of them",
        },
      },
    );
  }
  return status;
}

/** Whoever asks may stop waiting; libvirt is then told nothing more. */
export type VerbOptions = { readonly signal?: AbortSignal | undefined };

/** Defines the machine's domain; defining it again changes nothing. @throws {ShimError} CONFLICT when it was changed */
export async function defineMachine(
  context: AgentContext,
  id: string,
  options: VerbOptions = {},
): Promise<DomainReport> {
  return await holdMachine(
    context,
    id,
    options,
    async (machine) =>
      await withLibvirt(context, async (connection) => {
        const before = await findOwnDomain(connection, machine);
        const xml = await readDefinition(machine, machine.domainXml);
        return report(machine, (await ensureDefined(connection, { xml, before })).status);
      }, options),
  );
}

/**
 * Boots the machine, defining it first when libvirt does not know it. One that runs already is left running.
 *
 * @throws {ShimError} CONTENT_CORRUPT when its disk, or what it reads of the image, is no longer what it was made of;
 *   IN_USE when a QEMU that libvirt does not know runs it; whatever {@link startDomain} throws
 */
export async function startMachine(
  context: AgentContext,
  id: string,
  options: VerbOptions = {},
): Promise<DomainReport> {
  return await holdMachine(
    context,
    id,
    options,
    async (machine, record) => {
      const status = await startDomain({
        id: machine.id,
        xml: await readDefinition(machine, machine.domainXml),
        connect: (body) => withLibvirt(context, body, options),
        find: (connection) => findOwnDomain(connection, machine),
        check: async () => {
          await requireUnused(context, { id, uuid: machine.uuid, action: "start" });
          await verifyMachine(context, record, machine);
        },
      }, options);
      return report(machine, status);
    },
  );
}

/** Asks the guest to power off. @throws {ShimError} CONFLICT when it does not run */
export async function shutdownMachine(
  context: AgentContext,
  id: string,
  options: VerbOptions = {},
): Promise<DomainReport> {
  return await changeDomain(
    context,
    id,
    options,
    async (connection, machine) => await connection.shutdownDomain(machine.id),
  );
}

/** Cuts the guest's power. @throws {ShimError} CONFLICT when it does not run */
export async function destroyMachine(
  context: AgentContext,
  id: string,
  options: VerbOptions = {},
): Promise<DomainReport> {
  return await changeDomain(
    context,
    id,
    options,
    async (connection, machine) => await connection.destroyDomain(machine.id),
  );
}

/** Removes the definition from libvirt; disks stay. @throws {ShimError} IN_USE while the guest runs */
export async function undefineMachine(
  context: AgentContext,
  id: string,
  options: VerbOptions = {},
): Promise<DomainReport> {
  return await changeDomain(context, id, options, async (connection, machine, before) => {
    requireInactive(before);
    await connection.undefineDomain(machine.id);
  });
}

/** @throws {ShimError} IN_USE */
export function requireInactive(status: DomainStatus): void {
  if (status.id === null) return;
  throw new ShimError(
    "IN_USE",
    `Cannot undefine domain "${status.name}": it is ${status.state}, must be shut off`,
    {
      details: {
        id: status.name,
        remedy: `run: bootshim shutdown ${status.name} (or destroy, to cut its power)`,
      },
    },
  );
}

async function changeDomain(
  context: AgentContext,
  id: string,
  options: VerbOptions,
  change: (connection: DomainControl, machine: MachineDocument, before: DomainStatus) => Promise<void>,
): Promise<DomainReport> {
  return await holdMachine(
    context,
    id,
    options,
    async (machine) =>
      await withLibvirt(context, async (connection) => {
        const before = await findOwnDomain(connection, machine);
        if (!before) {
          throw new ShimError(
            "MACHINE_NOT_FOUND",
            `Cannot find domain "${id}" in libvirt: the machine is prepared but not defined`,
            {
              details: { id, remedy: `run: bootshim define ${id}` },
            },
          );
        }
        await change(connection, machine, before);
        return report(machine, await connection.findDomain(machine.id));
      }, options),
  );
}

/** Nobody prepares, releases or starts the machine meanwhile. One that is not there costs no lock file. */
async function holdMachine<T>(
  context: AgentContext,
  id: string,
  { signal }: VerbOptions,
  body: (machine: MachineDocument, record: MachineRecord) => Promise<T>,
): Promise<T> {
  await requireMachine(context, id);
  const machineId = parseMachineId(id);
  return await context.machines.hold(machineId, async () => {
    const record = await context.machines.read(machineId);
    return await body(documentOf(record), record);
  }, { signal });
}

function report(machine: MachineDocument, status: DomainStatus | null): DomainReport {
  return { id: machine.id, uuid: machine.uuid, state: status?.state ?? "undefined" };
}

/** The definition made by `prepare`. @throws {ShimError} IO_ERROR */
export async function readDefinition(machine: MachineDocument, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw toIoError(error, { action: `read the definition of machine "${machine.id}"`, path });
  }
}
