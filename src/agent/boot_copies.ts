import { join } from "node:path";
import { withIoErrors } from "../host/io_error.ts";
import type { BootCopies } from "../hypervisor/domain_xml/fragment.ts";
import { copyFileSparsely, reflinkFile } from "../machine/disk_file.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import type { AgentContext } from "./agent_context.ts";
import type { MachineDocument } from "./prepare_document.ts";

const NAMES = { kernel: "kernel", initramfs: "initramfs" } as const;

/** Where a machine's own copies of kernel and initramfs are, once {@link makeBootCopies} has made them. */
export function bootCopiesOf(directory: string): BootCopies {
  return { kernelPath: join(directory, NAMES.kernel), initramfsPath: join(directory, NAMES.initramfs) };
}

/**
 * Makes what the fragment `os` speaks of. Only then: the machine's own domain reads the cached layers, which many share,
 * and whose owner its label for the whole domain keeps.
 *
 * @throws {ShimError} MACHINE_NOT_FOUND, LOCK_TIMEOUT, NO_SPACE, BUSY, IO_ERROR
 */
export async function makeBootCopies(context: AgentContext, machine: MachineDocument): Promise<void> {
  const wanted = [
    ...copyOf(machine, { option: "-kernel", name: NAMES.kernel }),
    ...copyOf(machine, { option: "-initrd", name: NAMES.initramfs }),
  ];
  const { fileSystem } = context.machines;
  // A machine that has them need not be held: whoever holds it may do so for long.
  const missing = await withIoErrors({ action: "read a machine", path: machine.directory }, async () => {
    const names = await fileSystem.readdir(machine.directory);
    return wanted.filter(({ name }) => !names.includes(name));
  });
  if (missing.length === 0) return;
  await context.machines.hold(parseMachineId(machine.id), async (held) => {
    for (const { name, from } of missing) {
      await held.add(name, async (path) => {
        if (await reflinkFile(from, path, { fileSystem })) return;
        await copyFileSparsely(from, path, { fileSystem });
      });
    }
  });
}

/** By what the machine's QEMU command says; both stand before the guest's command line, whose words are not ours. */
function copyOf(
  { qemuCommand, directory }: MachineDocument,
  { option, name }: { readonly option: string; readonly name: string },
): { readonly name: string; readonly from: string }[] {
  const index = qemuCommand.indexOf(option);
  const from = index === -1 ? undefined : qemuCommand[index + 1];
  // A machine with a TPM boots its own files already.
  return from === undefined || from.startsWith(`${directory}/`) ? [] : [{ name, from }];
}
