import type { Command } from "commander";
import { readConsole } from "../../agent/console.ts";
import {
  defineMachine,
  destroyMachine,
  type DomainReport,
  shutdownMachine,
  startMachine,
  undefineMachine,
} from "../../agent/domains.ts";
import type { AgentContext } from "../../agent/agent_context.ts";
import { listMachines, releaseMachine } from "../../agent/machines.ts";
import { shortDigest } from "../../image/digest.ts";
import { formatColumns } from "../columns.ts";
import { beginInvocation, type Composition } from "../invocation.ts";

/** Prepared machines and their domains. */
export function registerMachineCommands(program: Command, composition: Composition): void {
  registerMachines(program, composition);
  registerRelease(program, composition);
  registerConsole(program, composition);
  registerVerb(program, composition, {
    name: "define",
    description: "define the machine's domain in libvirt",
    change: defineMachine,
  });
  registerVerb(program, composition, {
    name: "start",
    description: "boot the machine under libvirt; defines it when needed",
    change: startMachine,
  });
  registerVerb(program, composition, {
    name: "shutdown",
    description: "ask the guest to power off",
    change: shutdownMachine,
  });
  registerVerb(program, composition, {
    name: "destroy",
    description: "cut the guest's power",
    change: destroyMachine,
  });
  registerVerb(program, composition, {
    name: "undefine",
    description: "remove the definition from libvirt; the disk stays",
    change: undefineMachine,
  });
}

function registerMachines(program: Command, composition: Composition): void {
  const command = program.command("machines").description("list the prepared machines");
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const machines = await listMachines(await invocation.openContext());
    invocation.print(machines, (listed) =>
      formatColumns(
        ["ID", "UUID", "IMAGE", "MANIFEST", "CREATED"],
        listed.map((
          machine,
        ) => [
          machine.id,
          machine.uuid,
          machine.reference,
          shortDigest(machine.manifestDigest),
          machine.createdAt,
        ]),
      ));
  });
}

function registerRelease(program: Command, composition: Composition): void {
  const command = program.command("release").argument("<id>").description(
    "give a machine up: remove its definition, disk and folder",
  );
  command.action(async (id: string) => {
    const invocation = await beginInvocation(command, composition);
    const released = await releaseMachine(await invocation.openContext(), id, { signal: invocation.signal });
    invocation.print(released, (machine) => `released ${machine.id}\n`);
  });
}

function registerConsole(program: Command, composition: Composition): void {
  const command = program.command("console").argument("<id>").description(
    "print what the machine's serial console said, as libvirt logged it",
  )
    .option("-f, --follow", "go on printing until Ctrl-C");
  command.action(async (id: string, options: { follow?: boolean }) => {
    const invocation = await beginInvocation(command, composition);
    const decoder = new TextDecoder();
    await readConsole(await invocation.openContext(), id, {
      isFollowed: options.follow === true,
      signal: invocation.signal,
      onBytes: (bytes) => invocation.terminal.writeOut(decoder.decode(bytes, { stream: true })),
    });
  });
}

type Verb = {
  readonly name: string;
  readonly description: string;
  readonly change: (context: AgentContext, id: string) => Promise<DomainReport>;
};

function registerVerb(program: Command, composition: Composition, { name, description, change }: Verb): void {
  const command = program.command(name).argument("<id>").description(description);
  command.action(async (id: string) => {
    const invocation = await beginInvocation(command, composition);
    invocation.print(
      await change(await invocation.openContext(), id),
      (report) => `${report.id} ${report.state}\n`,
    );
  });
}
