import type { Command } from "commander";
import { type Definition, definitionOfImage, definitionOfMachine } from "../../agent/definition.ts";
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
  machineWishesOf,
  readReference,
} from "./wish_options.ts";

const options = imageOptions.extend(bootOptions.shape).extend(machineOptions.shape);

/** The name of the machine that an image's definition speaks of when there is none. */
const PREVIEW_ID = "preview";

/** `xml` and `qemu`: a machine's definitions as prepared, or what an image's would be. */
export function registerDefinitionCommands(program: Command, composition: Composition): void {
  register(program, composition, {
    name: "xml",
    description: "print the libvirt domain XML",
    print: (invocation, { domainXml }) => invocation.print({ domainXml }, () => domainXml),
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
  readonly print: (invocation: Invocation, definition: Definition) => void;
};

function register(program: Command, composition: Composition, { name, description, print }: Printer): void {
  const command = program.command(name).argument("<id|ref>", "a prepared machine, or an image").description(
    description,
  );
  addMachineOptions(addBootOptions(addImageOptions(command)));
  addExamples(command, [`${name} vm-1`, `${name} registry.example.org/os/linux:1 --memory 2GiB`]);
  command.action(async (word: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, options);
    const machine = { ...machineWishesOf(given), id: PREVIEW_ID };
    // An id has no slash and no colon, a reference always has one.
    if (!/[/:]/.test(word)) {
      return print(invocation, await definitionOfMachine(await invocation.openContext(), word));
    }
    const reference = readReference(word, invocation.environment);
    const context = await invocation.openContext();
    const wish = { ...imageWishOf(context, reference, given), ...bootWishesOf(given), machine };
    print(
      invocation,
      await invocation.withProgress((onProgress) =>
        definitionOfImage(context, wish, { signal: invocation.signal, onProgress })
      ),
    );
  });
}
