import { randomBytes } from "node:crypto";
import { ShimError } from "../errors.ts";
import { parseMachineId } from "../machine/machine_id.ts";
import { runQemu } from "../qemu/qemu_process.ts";
import { withTpmEmulator } from "../qemu/tpm_emulator.ts";
import type { AgentContext } from "./agent_context.ts";
import { tpmPlaceOf } from "./definition.ts";
import { prepare, type PrepareWish } from "./prepare.ts";
import type { PrepareDocument } from "./prepare_document.ts";
import type { MachineWishes } from "./prepare_machine.ts";
import type { OperationOptions } from "./progress.ts";
import { verifyMachine } from "./verify_machine.ts";

export type RunWish = Omit<PrepareWish, "machine"> & {
  readonly machine: Omit<MachineWishes, "id">;
  /** Keep the machine's folder when the guest has ended. */
  readonly isKept: boolean;
  readonly timeoutMs: number | undefined;
  /** Whether the guest's console reads our standard input. */
  readonly stdin: "inherit" | "ignore";
};

export type RunOptions = OperationOptions & {
  /** Told once, before the guest starts. */
  readonly onPrepared?: (document: PrepareDocument) => void;
  readonly onConsole: (bytes: Uint8Array) => void | Promise<void>;
};

/**
 * Boots an image once, in the foreground, on a machine made for it and thrown away afterwards.
 *
 * @returns when the guest powered off; the document of the machine it ran on
 * @throws {ShimError} whatever `prepare` throws; HYPERVISOR_TIMEOUT, QEMU_FAILED, CANCELLED; the machine is gone then too
 */
export async function run(
  context: AgentContext,
  wish: RunWish,
  options: RunOptions,
): Promise<PrepareDocument> {
  const id = parseMachineId(`run-${randomBytes(6).toString("hex")}`);
  // What earlier runs left, because they were killed.
  await context.machines.sweep();
  // Held as long as the guest runs: whoever can take it knows that this run is over.
  return await context.machines.hold(id, async (held) => {
    const document = await prepare(context, { ...wish, machine: { ...wish.machine, id } }, {
      ...options,
      held,
      isThrownAway: !wish.isKept,
    });
    try {
      if (document.machine) await verifyMachine(context, await context.machines.read(id), document.machine);
      await runPrepared(document, wish, options);
    } finally {
      if (!wish.isKept) await held.remove();
    }
    return document;
  }, { signal: options.signal });
}

async function runPrepared(
  document: PrepareDocument,
  { isKept, stdin, timeoutMs, machine: { tpm } }: RunWish,
  options: RunOptions,
): Promise<void> {
  const { machine } = document;
  if (!machine) throw new ShimError("INTERNAL", "Cannot run the image: prepare gave no machine");
  options.onPrepared?.(document);
  const { signal, onConsole } = options;
  const guest = async () =>
    void await runQemu(machine.qemuCommand, {
      stdin,
      onConsole,
      timeoutMs,
      signal,
      ...(isKept ? { consoleLogPath: `${machine.directory}/console.log` } : {}),
    });
  await (tpm ? withTpmEmulator({ ...tpmPlaceOf(machine), signal }, guest) : guest());
}
