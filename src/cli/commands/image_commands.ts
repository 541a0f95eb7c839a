import { type Command, Option } from "commander";
import prettyBytes from "pretty-bytes";
import { z } from "zod";
import { buildImage } from "../../agent/build_image.ts";
import { type CachedImage, listImages, tagImage } from "../../agent/images.ts";
import { pullImage } from "../../agent/pull_image.ts";
import type { ImageDocument } from "../../api/documents.ts";
import { shortDigest } from "../../image/digest.ts";
import { formatColumns } from "../columns.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";
import { readAnnotations, readBuildPart } from "./build_part.ts";
import { addImageOptions, imageOptions, imageWishOf, readReference } from "./wish_options.ts";

/** The cache, and making images: `pull`, `images`, `build`, `tag`. */
export function registerImageCommands(program: Command, composition: Composition): void {
  registerPull(program, composition);
  registerImages(program, composition);
  registerBuild(program, composition);
  registerTag(program, composition);
}

function registerPull(program: Command, composition: Composition): void {
  const command = program.command("pull").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, oci:DIR:TAG or oci-archive:FILE:TAG",
  ).description(
    "fetch and verify an image into the cache",
  );
  addImageOptions(command);
  addExamples(command, [
    "pull registry.example.org/os/linux:1",
    "pull registry.example.org/os/linux:1 --arch arm64 --pull always",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, imageOptions);
    const reference = readReference(text, invocation.environment);
    const context = await invocation.openContext();
    const wish = imageWishOf(context, reference, given);
    const { image, transferredBytes } = await invocation.withProgress((onProgress) =>
      pullImage(context, wish, { signal: invocation.signal, onProgress })
    );
    invocation.print(
      {
        reference: image.name,
        digest: image.root.digest,
        manifestDigest: image.chosen.descriptor.digest,
        cached: transferredBytes === 0,
        transferredBytes,
      },
      (pulled) =>
        `${printable(pulled.reference)} ${pulled.digest} ${
          pulled.cached ? "cached" : `${pulled.transferredBytes} bytes`
        }\n`,
    );
  });
}

function registerImages(program: Command, composition: Composition): void {
  const command = program.command("images").description("list the cached images");
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    invocation.print<readonly (CachedImage | ImageDocument)[]>(
      await (invocation.service?.images() ?? invocation.openContext().then(listImages)),
      formatImages,
    );
  });
}

function formatImages(images: readonly (CachedImage | ImageDocument)[]): string {
  const rows = images.map((image) => [
    image.reference,
    shortDigest(image.digest),
    image.platforms.filter((each) => each.isComplete).map((each) =>
      `${each.architecture ?? "any"}/${each.variant ?? "any"}`
    ).join(",") || "-",
    prettyBytes(image.sizeBytes, { binary: true }),
  ]);
  return formatColumns(["REFERENCE", "DIGEST", "COMPLETE FOR", "SIZE"], rows);
}

const buildOptions = z.object({
  tag: z.string(),
  parts: z.array(z.string()),
  format: z.enum(["ironcore", "spec"]),
  annotation: z.array(z.string()),
});

function registerBuild(program: Command, composition: Composition): void {
  const command = program.command("build")
    .description("make an image of files and keep it in the cache, ready to push")
    .requiredOption("--tag <name>", "name of the image, HOST/REPOSITORY:TAG")
    .addOption(partOption())
    .option(
      "--format <name>",
      "ironcore: what providers read today; spec: the specification's disk type",
      "ironcore",
    )
    .option(
      "--annotation <KEY=VALUE>",
      "annotate the image's index (repeatable)",
      (value: string, before: string[]) => [...before, value],
      [],
    );
  addExamples(command, [
    "build --tag 127.0.0.1:5000/os/demo:1 --config arch=amd64,kernel=vmlinuz,initramfs=initrd.gz,cmdline=cmdline.txt",
    "build --tag 127.0.0.1:5000/os/demo:1 --config arch=amd64,rootfs=disk.raw --config arch=amd64,variant=metal,uki=linux.efi",
  ]);
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, buildOptions);
    const name = readReference(given.tag, invocation.environment);
    const parts = await Promise.all(given.parts.map((text) => readBuildPart(text, invocation.environment)));
    const built = await buildImage(await invocation.openContext(), name, parts, {
      format: given.format,
      annotations: readAnnotations(given.annotation),
      signal: invocation.signal,
    });
    invocation.print({
      reference: built.reference,
      digest: built.digest,
      manifests: built.manifests.map((manifest) => ({
        digest: manifest.digest,
        architecture: manifest.platform?.architecture,
        variant: manifest.annotations["variant"],
      })),
    }, ({ reference, digest }) => `${reference} ${digest}\n`);
  });
}

/** Every command's `--config` is the configuration file, but here it is a part of the image; the name inside differs. */
function partOption(): Option {
  const option = new Option(
    "--config <key=value,...>",
    "one manifest: arch=, variant=, rootfs=, kernel=, initramfs=, squashfs=, uki=, iso=FILE, cmdline=FILE (repeatable)",
  )
    .makeOptionMandatory()
    .argParser((value: string, before: string[] | undefined) => [...before ?? [], value]);
  option.attributeName = () => "parts";
  return option;
}

function registerTag(program: Command, composition: Composition): void {
  const command = program.command("tag").argument("<src>").argument("<dst>").description(
    "give a cached image one more name",
  );
  addExamples(command, ["tag oci:./layout:1 127.0.0.1:5000/os/demo:1"]);
  command.action(async (sourceText: string, targetText: string) => {
    const invocation = await beginInvocation(command, composition);
    const source = readReference(sourceText, invocation.environment);
    const target = readReference(targetText, invocation.environment);
    const tagged = await tagImage(await invocation.openContext(), source, target);
    invocation.print(tagged, ({ reference, digest }) => `${reference} ${digest}\n`);
  });
}
