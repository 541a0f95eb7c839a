import type { Command } from "commander";
import { z } from "zod";
import { type Definition, definitionOfImage, definitionOfMachine } from "../../agent/definition.ts";
import { ShimError } from "../../errors.ts";
import { FRAGMENTS } from "../../hypervisor/domain_xml/fragment.ts";
import { quoteShell } from "../../hypervisor/qemu_command/shell.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, type Invocation, readOptions } from "../invocation.ts";
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
} from "./wish_options.ts";

const wishOptions = imageOptions.extend(bootOptions.shape).extend(machineOptions.shape);
const options = wishOptions.extend({ fragment: z.enum(FRAGMENTS).optional() });
type Options = z.infer<typeof options>;

/** Wishes for files of a machine's own, which an image has not. */
const FILE_WISHES: ReadonlySet<string> = new Set([
  "diskSize",
  "diskFormat",
  "clone",
  "dataDisk",
  "ignition",
  "userData",
  "metadata",
  "tpm",
]);

/** The name of the machine that an image's definition speaks of when there is none. */
const PREVIEW_ID = "preview";

/** `xml` and `qemu`: a machine's definitions as prepared, or what an image's would be. */
export function registerDefinitionCommands(program: Command, composition: Composition): void {
  register(program, composition, {
    name: "xml",
    description: "print the libvirt domain XML",
    print: (invocation, { domainXml, fragments }, { fragment }) =>
      fragment === undefined
        ? invocation.print({ domainXml }, () => domainXml)
        : invocation.print({ fragment, xml: fragments[fragment] }, () => fragments[fragment]),
    extend: (command) =>
      command.option(
        "--fragment <part>",
        "os or disks: only that part, for a domain of your own (without <seclabel> for dac)",
      ),
  });
  register(program, composition, {
    name: "qemu",
    description: "print the QEMU command, ready to paste into a shell",
    print: (invocation, { qemuCommand }) =>
      invocation.print({ qemuCommand }, () => quoteShell(qemuCommand) + "\n"),
  });
}

type Printer = {
  readonly name: string;
  readonly description: string;
  readonly print: (invocation: Invocation, definition: Definition, options: Options) => void;
  readonly extend?: (command: Command) => void;
};

function register(program: Command, composition: Composition, printer: Printer): void {
  const { name, description, print, extend } = printer;
  const command = program.command(name).argument("<id|ref>", "a prepared machine, or an image").description(
    description,
  );
  addMachineOptions(addBootOptions(addImageOptions(command)));
  extend?.(command);
  addExamples(command, [`${name} vm-1`, `${name} registry.example.org/os/linux:1 --memory 2GiB`]);
  command.action(async (word: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, options);
    const machine = { ...await readMachineWishes(given, invocation.environment), id: PREVIEW_ID };
    // An id has no slash and no colon, a reference always has one.
    const isMachine = !/[/:]/.test(word);
    refuseVainWishes(command, word, isMachine);
    if (isMachine) {
      const { service } = invocation;
      const definition = await (service?.definition(word) ??
        definitionOfMachine(await invocation.openContext(), word, {
          isMerged: given.fragment !== undefined,
        }));
      return print(invocation, definition, given);
    }
    const reference = readReference(word, invocation.environment);
    const context = await invocation.openContext();
    const wish = {
      ...imageWishOf(context, reference, given),
      ...bootWishesOf(given),
      machine,
      fragment: given.fragment,
    };
    print(
      invocation,
      await invocation.withProgress((onProgress) =>
        definitionOfImage(context, wish, { signal: invocation.signal, onProgress })
      ),
      given,
    );
  });
}

/** A machine is as it was prepared, and an image has no files of a machine: wishes for either would do nothing. */
function refuseVainWishes(command: Command, word: string, isMachine: boolean): void {
  const vain = command.options.filter((option) => {
    const name = option.attributeName();
    return command.getOptionValueSource(name) === "cli" &&
      (isMachine ? Object.hasOwn(wishOptions.shape, name) : FILE_WISHES.has(name));
  });
  if (vain.length === 0) return;
  const flags = vain.map((option) => option.long ?? option.flags).join(", ");
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use ${flags} here: ${JSON.stringify(word)} is ${
      isMachine ? "a machine, defined as it was prepared" : "an image, which has no files of a machine"
    }`,
    { details: { remedy: "give these options to: bootshim prepare REF --machine ID" } },
  );
}
