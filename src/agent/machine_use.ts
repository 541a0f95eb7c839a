import { ShimError } from "../errors.ts";
import { findProcesses } from "../host/find_process.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import type { AgentContext } from "./agent_context.ts";

/** A machine by what is known of it; without a record that can be read there is no UUID. */
export type UsedMachine = { readonly id: string; readonly uuid: string | null; readonly action: string };

/**
 * Refuses while a QEMU runs the machine, whoever started it: by the locks that QEMU holds on disks and NVRAM, and by the
 * UUID on its command line, which a machine without a disk of its own has, too.
 *
 * @param machine.action completes "Cannot …"
 * @throws {ShimError} IN_USE; BUSY, IO_ERROR
 */
export async function requireUnused(
  context: AgentContext,
  { id, uuid, action }: UsedMachine,
): Promise<void> {
  const path = await context.machines.findLockedFile(parseMachineId(id));
  const refuse = (why: string, details: Record<string, string | number>) =>
    new ShimError("IN_USE", `Cannot ${action} machine "${id}": ${why}`, {
      details: { id, ...details, remedy: "stop that guest first" },
    });
  if (path !== null) throw refuse(`a running QEMU holds "${path}"`, { path });
  const [processId] = uuid === null ? [] : await findProcesses(["-uuid", uuid]);
  if (processId !== undefined) throw refuse(`process ${processId} runs it`, { processId });
}
