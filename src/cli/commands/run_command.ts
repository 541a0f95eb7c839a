import type { Command } from "commander";
import { z } from "zod";
import { run } from "../../agent/run.ts";
import { addExamples } from "../examples.ts";
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
  readMachineWishes,
  readReference,
} from "./wish_options.ts";

const options = imageOptions.extend(bootOptions.shape).extend(machineOptions.shape).extend({
  keep: z.boolean().default(false),
  timeout: z.string().regex(/^(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?$/, "must be a number of seconds above 0")
    .optional(),
});

export function registerRun(program: Command, composition: Composition): void {
  const command = program.command("run").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, oci:DIR:TAG or oci-archive:FILE:TAG",
  )
    .description("boot an image once under QEMU; its serial console is on stdout (and stdin, on a terminal)")
    .option("--keep", "keep the machine's folder")
    .option("--timeout <seconds>", "end the guest after this time");
  addMachineOptions(addBootOptions(addImageOptions(command)));
  command.addHelpText(
    "after",
    "\nCtrl-C ends the guest. The exit code is 0 when the guest powered off by itself.",
  );
  addExamples(command, [
    "run oci:./layout:1",
    "run registry.example.org/os/linux:1 --memory 2GiB --timeout 60 > console.txt",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const { terminal } = invocation;
    const given = readOptions(command, options);
    const reference = readReference(text, invocation.environment);
    const machine = await readMachineWishes(given, invocation.environment);
    const context = await invocation.openContext();
    const wish = {
      ...imageWishOf(context, reference, given),
      ...bootWishesOf(given),
      machine,
      isKept: given.keep,
      timeoutMs: given.timeout === undefined ? undefined : Number(given.timeout) * 1000,
      stdin: terminal.isInputTerminal ? "inherit" as const : "ignore" as const,
    };
    // The bars must be gone before the guest takes the terminal.
    const view = await invocation.openProgress();
    const decoder = new TextDecoder();
    try {
      await run(context, wish, {
        signal: invocation.signal,
        onProgress: view.listen,
        onPrepared: ({ machine }) => {
          view.close();
          // Told before the guest starts: it may be interrupted.
          if (given.keep && machine) {
            context.note(`machine "${machine.id}" is kept in "${machine.directory}"`);
          }
        },
        onConsole: (bytes) => terminal.writeOut(decoder.decode(bytes, { stream: true })),
      });
      // Ctrl-C reaches QEMU, too, which may have ended in good order before we heard of it.
      invocation.signal.throwIfAborted();
    } finally {
      view.close();
    }
  });
}
