import type { Command } from "commander";
import { z } from "zod";
import { run } from "../../agent/run.ts";
import { ShimError } from "../../errors.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
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

const options = imageOptions.extend(bootOptions.shape).extend(machineOptions.shape).extend({
  keep: z.boolean().default(false),
  timeout: z.string().regex(/^[0-9]{1,6}(\.[0-9]{1,3})?$/, "must be a number of seconds").optional(),
});

export function registerRun(program: Command, composition: Composition): void {
  const command = program.command("run").argument("<ref>", "HOST/REPOSITORY:TAG or oci:DIR:TAG")
    .description("boot an image once under QEMU; its serial console is on stdout (and stdin, on a terminal)")
    .option("--keep", "keep the machine's folder")
    .option("--timeout <seconds>", "end the guest after this time");
  addMachineOptions(addBootOptions(addImageOptions(command)));
  command.addHelpText(
    "after",
    `
Ctrl-C ends the guest. The exit code is 0 when the guest powered off by itself.

Examples:
  bootshim run oci:./layout:1
  bootshim run registry.example.org/os/linux:1 --memory 2GiB --timeout 60 > console.txt`,
  );
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const { terminal } = invocation;
    const given = readOptions(command, options);
    const context = await invocation.openContext();
    const wish = {
      ...imageWishOf(context, readReference(text, invocation.environment), given),
      ...bootWishesOf(given),
      machine: machineWishesOf(given),
      isKept: given.keep,
      timeoutMs: given.timeout === undefined ? undefined : Number(given.timeout) * 1000,
      stdin: terminal.isInputTerminal ? "inherit" as const : "ignore" as const,
    };
    if (wish.timeoutMs === 0) {
      throw new ShimError("REQUEST_INVALID", 'Cannot use --timeout "0": must be more than 0 seconds');
    }
    // The bars must be gone before the guest takes the terminal.
    const view = invocation.openProgress();
    const decoder = new TextDecoder();
    try {
      const document = await run(context, wish, {
        signal: invocation.signal,
        onProgress: view.listen,
        onPrepared: view.close,
        onConsole: (bytes) => terminal.writeOut(decoder.decode(bytes, { stream: true })),
      });
      if (given.keep && document.machine) {
        context.note(`kept machine "${document.machine.id}" in "${document.machine.directory}"`);
      }
    } finally {
      view.close();
    }
  });
}
