import type { Command } from "commander";
import { readConsole } from "../../agent/console.ts";
import {
  defineMachine,
  destroyMachine,
  type DomainReport,
  shutdownMachine,
  startMachine,
  undefineMachine,
  type VerbOptions,
} from "../../agent/domains.ts";
import type { AgentContext } from "../../agent/agent_context.ts";
import { listMachines, releaseMachine, showMachine, type ShownMachine } from "../../agent/machines.ts";
import type { BootshimClient, DomainVerb } from "../../api/client.ts";
import { ShimError } from "../../errors.ts";
import { shortDigest } from "../../image/digest.ts";
import { formatColumns } from "../columns.ts";
import { beginInvocation, type Composition } from "../invocation.ts";
import { printable } from "../printable.ts";
import { describeDisk } from "./prepare_command.ts";

/** Prepared machines and their domains. */
export function registerMachineCommands(program: Command, composition: Composition): void {
  registerMachines(program, composition);
  registerMachine(program, composition);
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
    const machines = await (invocation.service?.machines() ?? invocation.openContext().then(listMachines));
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

function registerMachine(program: Command, composition: Composition): void {
  const command = program.command("machine").argument("<verb>", "show").argument("<id>").description(
    "show one machine: what it was made of, its files, its state under libvirt",
  );
  command.action(async (verb: string, id: string) => {
    const invocation = await beginInvocation(command, composition);
    if (verb !== "show") {
      throw new ShimError("REQUEST_INVALID", `Cannot run "machine ${verb}": the only verb is "show"`, {
        details: { remedy: `run: bootshim machine show ${id}` },
      });
    }
    invocation.print(
      await (invocation.service?.machine(id) ?? showMachine(await invocation.openContext(), id)),
      formatMachine,
    );
  });
}

function formatMachine(shown: ShownMachine | Awaited<ReturnType<BootshimClient["machine"]>>): string {
  const { machine } = shown;
  const lines: [string, string][] = [
    ["machine", `${shown.id} (${shown.uuid})`],
    ["state", shown.state ?? "unknown: libvirt does not answer"],
    ["reference", shown.reference],
    ["manifest", `${shown.manifestDigest} (${shown.architecture})`],
    ["created", shown.createdAt],
    ["directory", shown.directory],
    ...machine.disks.map((disk): [string, string] => ["disk", describeDisk(disk)]),
    ...(machine.nvram === null ? [] : [["nvram", machine.nvram] satisfies [string, string]]),
    ["domain XML", machine.domainXml],
  ];
  return lines.map(([name, value]) => `${name.padEnd(12)} ${printable(value)}`.trimEnd() + "\n").join("");
}

function registerRelease(program: Command, composition: Composition): void {
  const command = program.command("release").argument("<id>").description(
    "give a machine up: remove its definition, disk and folder",
  );
  command.action(async (id: string) => {
    const invocation = await beginInvocation(command, composition);
    const { service, signal } = invocation;
    const released = await (service?.release(id, { signal }) ??
      releaseMachine(await invocation.openContext(), id, { signal }));
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
  readonly name: DomainVerb;
  readonly description: string;
  readonly change: (context: AgentContext, id: string, options: VerbOptions) => Promise<DomainReport>;
};

function registerVerb(program: Command, composition: Composition, { name, description, change }: Verb): void {
  const command = program.command(name).argument("<id>").description(description);
  command.action(async (id: string) => {
    const invocation = await beginInvocation(command, composition);
    const { service, signal } = invocation;
    invocation.print(
      await (service?.domain(name, id, { signal }) ?? change(await invocation.openContext(), id, { signal })),
      (report) => `${report.id} ${report.state}\n`,
    );
  });
}
