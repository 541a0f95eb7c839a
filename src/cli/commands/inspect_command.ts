import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { type InspectedImage, inspectImage } from "../../agent/inspect.ts";
import { shortDigest } from "../../image/digest.ts";
import { formatColumns } from "../columns.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";
import { addImageOptions, imageOptions, imageWishOf, readReference } from "./wish_options.ts";

export function registerInspect(program: Command, composition: Composition): void {
  const command = program.command("inspect").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, oci:DIR:TAG or oci-archive:FILE:TAG",
  )
    .description("show what an image offers, what would be chosen and how it would boot; fetches no layer");
  addImageOptions(command);
  addExamples(command, [
    "inspect registry.example.org/os/linux:1",
    "inspect oci:./layout:1 --arch arm64 -o json",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, imageOptions);
    const reference = readReference(text, invocation.environment);
    const context = await invocation.openContext();
    const image = imageWishOf(context, reference, given);
    const wish = { ...image, boot: "auto" as const, firmware: "auto" as const };
    invocation.print(await inspectImage(context, wish, { signal: invocation.signal }), formatInspected);
  });
}

function formatInspected(image: InspectedImage): string {
  const entries = image.entries.map((entry) => [
    entry.isChosen ? "->" : "",
    entry.architecture ?? "any",
    entry.os ?? "any",
    entry.variant ?? "unstated",
    entry.digest,
  ]);
  const layers = image.layers.map((layer) => [
    layer.role,
    prettyBytes(layer.sizeBytes, { binary: true }),
    shortDigest(layer.digest),
    layer.isCached ? "cached" : "not cached",
    layer.mediaType,
  ]);
  const modes = image.modes.map((mode) => [mode.mode, mode.possible ? "yes" : "no", mode.why]);
  return [
    `reference  ${printable(image.reference)}\n`,
    `digest     ${image.digest}\n`,
    `manifest   ${image.manifestDigest}\n`,
    `cmdline    ${printable((image.commandLine ?? "").trimEnd())}`.trimEnd() + "\n\n",
    formatColumns(["", "ARCHITECTURE", "OS", "VARIANT", "MANIFEST"], entries) + "\n",
    formatColumns(["ROLE", "SIZE", "DIGEST", "CACHE", "MEDIA TYPE"], layers) + "\n",
    formatColumns(["BOOT", "POSSIBLE", "WHY"], modes),
    image.modesVerified
      ? ""
      : "note: the modes were told from the first 64 KiB of layers, not yet verified; prepare decides again\n",
    ...image.notes.map((note) => `note: ${printable(note)}\n`),
  ].join("");
}
