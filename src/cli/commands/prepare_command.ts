import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { z } from "zod";
import { prepare } from "../../agent/prepare.ts";
import type { Progress } from "../../agent/progress.ts";
import type { MachineDisk, PrepareDocument } from "../../agent/prepare_document.ts";
import { prepareRequestOf } from "./prepare_request_of.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";
import {
  addBootOptions,
  addImageOptions,
  addMachineOptions,
  bootOptions,
  bootWishesOf,
  imageOptions,
  imageWishOf,
  machineOptions,
  readMachineWishes,
  readReference,
  requireNoDiskWishes,
} from "./wish_options.ts";

const options = imageOptions.extend(bootOptions.shape).extend(machineOptions.shape).extend({
  machine: z.string().optional(),
});

export function registerPrepare(program: Command, composition: Composition): void {
  const command = program.command("prepare").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, oci:DIR:TAG or oci-archive:FILE:TAG",
  )
    .description(
      "pull what is missing, verify it, decide the boot; with --machine also make that machine's disk and definitions",
    )
    .option("--machine <id>", "make this machine's disk, domain XML and QEMU command");
  addMachineOptions(addBootOptions(addImageOptions(command)));
  addExamples(command, [
    "prepare registry.example.org/os/linux:1 --machine vm-1 --disk-size 20GiB",
    "prepare oci:./layout:1 -o json | jq .boot",
    "prepare registry.example.org/os/linux:1 --boot kernel --append console=ttyS0",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, options);
    // Read even when there is no machine: a wish that makes no sense is told, not passed over.
    const machine = await readMachineWishes(given, invocation.environment);
    if (given.machine === undefined) requireNoDiskWishes(machine, "name one: --machine ID");
    const reference = readReference(text, invocation.environment);
    const { service } = invocation;
    if (service) {
      // The client waits for a service that restarts; one that is not there at all is told at once.
      await service.version({ signal: invocation.signal });
      const request = prepareRequestOf(
        text,
        given,
        given.machine === undefined ? null : { ...machine, id: given.machine },
      );
      const document = await invocation.withProgress((onProgress) =>
        service.prepare(request, {
          signal: invocation.signal,
          // Told by the agent there, in the words of the agent here.
          onProgress: (progress) => onProgress(progress as unknown as Progress),
        })
      );
      return invocation.print(document, formatPrepared);
    }
    const context = await invocation.openContext();
    const wish = {
      ...imageWishOf(context, reference, given),
      ...bootWishesOf(given),
      machine: given.machine === undefined ? null : { ...machine, id: given.machine },
    };
    const document = await invocation.withProgress((onProgress) =>
      prepare(context, wish, { signal: invocation.signal, onProgress })
    );
    invocation.print(document, formatPrepared);
  });
}

function formatPrepared(document: PrepareDocument): string {
  const { boot, machine } = document;
  const lines: [string, string][] = [
    ["reference", document.reference],
    ["digest", document.digest],
    ["manifest", `${document.manifestDigest} (${document.architecture}, ${document.variant})`],
    [
      "transferred",
      document.cached
        ? "0 bytes (cached)"
        : `${document.transferredBytes} bytes (${prettyBytes(document.transferredBytes, { binary: true })})`,
    ],
    ...document.layers.map((layer): [string, string] => [layer.role, layer.path]),
    ["boot", `${boot.mode}, firmware ${boot.firmware}; ${boot.reason}`],
    ["cmdline", boot.cmdline],
  ];
  if (machine) {
    lines.push(["machine", `${machine.id} (${machine.uuid})`]);
    for (const disk of machine.disks) lines.push(["disk", describeDisk(disk)]);
    lines.push(["domain XML", machine.domainXml]);
  }
  return lines.map(([name, value]) => `${name.padEnd(12)} ${printable(value)}`.trimEnd() + "\n").join("");
}

/** A disk of a machine, in one line. */
export function describeDisk({ path, format, method, virtualSizeBytes }: MachineDisk): string {
  return `${path} (${format}, ${method}, ${prettyBytes(virtualSizeBytes, { binary: true })})`;
}
