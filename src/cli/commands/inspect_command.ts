import type { Command } from "commander";
import { inspectImage } from "../../agent/inspect.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { formatInspected } from "./inspected_text.ts";
import {
  addBootOptions,
  addImageOptions,
  bootOptions,
  bootWishesOf,
  imageOptions,
  imageWishOf,
  readReference,
} from "./wish_options.ts";

const options = imageOptions.extend(bootOptions.shape);

export function registerInspect(program: Command, composition: Composition): void {
  const command = program.command("inspect").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, oci:DIR:TAG or oci-archive:FILE:TAG",
  )
    .description("show what an image offers, what would be chosen and how it would boot; fetches no layer");
  addImageOptions(command);
  addBootOptions(command);
  addExamples(command, [
    "inspect registry.example.org/os/linux:1",
    "inspect oci:./layout:1 --arch arm64 -o json",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, options);
    const reference = readReference(text, invocation.environment);
    const context = await invocation.openContext();
    const wish = { ...imageWishOf(context, reference, given), ...bootWishesOf(given) };
    const { outColumns: columns, hasOutColour: hasColour } = invocation.terminal;
    const inspected = await inspectImage(context, wish, { signal: invocation.signal });
    invocation.print(inspected, (value) => formatInspected(value, { columns, hasColour }));
  });
}
