import { type Command, Option } from "commander";
import prettyBytes from "pretty-bytes";
import { z } from "zod";
import { buildImage } from "../../agent/build_image.ts";
import { type CachedImage, listImages, tagImage } from "../../agent/images.ts";
import { pullImage } from "../../agent/pull_image.ts";
import { pushImage } from "../../agent/push_image.ts";
import { shortDigest } from "../../image/digest.ts";
import { formatColumns } from "../columns.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { readBuildPart } from "./build_part.ts";
import { addImageOptions, imageOptions, imageWishOf, readReference } from "./wish_options.ts";

/** The cache, and making images: `pull`, `images`, `build`, `tag`, `push`. */
export function registerImageCommands(program: Command, composition: Composition): void {
  registerPull(program, composition);
  registerImages(program, composition);
  registerBuild(program, composition);
  registerTag(program, composition);
  registerPush(program, composition);
}

function registerPull(program: Command, composition: Composition): void {
  const command = program.command("pull").argument("<ref>", "HOST/REPOSITORY:TAG or oci:DIR:TAG").description(
    "fetch and verify an image into the cache",
  );
  addImageOptions(command);
  command.addHelpText(
    "after",
    "\nExamples:\n  bootshim pull registry.example.org/os/linux:1\n  bootshim pull registry.example.org/os/linux:1 --arch arm64 --pull always",
  );
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const context = await invocation.openContext();
    const wish = imageWishOf(
      context,
      readReference(text, invocation.environment),
      readOptions(command, imageOptions),
    );
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
        `${pulled.reference} ${pulled.digest} ${
          pulled.cached ? "cached" : `${pulled.transferredBytes} bytes`
        }\n`,
    );
  });
}

function registerImages(program: Command, composition: Composition): void {
  const command = program.command("images").description("list the cached images");
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const images = await listImages(await invocation.openContext());
    invocation.print(images, formatImages);
  });
}

function formatImages(images: readonly CachedImage[]): string {
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

function registerBuild(program: Command, composition: Composition): void {
  const command = program.command("build")
    .description("make an image of files and keep it in the cache, ready to push")
    .requiredOption("--tag <name>", "name of the image, HOST/REPOSITORY:TAG")
    .addOption(partOption());
  command.addHelpText(
    "after",
    `
Examples:
  bootshim build --tag 127.0.0.1:5000/os/demo:1 --config arch=amd64,kernel=vmlinuz,initramfs=initrd.gz,cmdline=cmdline.txt
  bootshim build --tag 127.0.0.1:5000/os/demo:1 --config arch=amd64,rootfs=disk.raw --config arch=amd64,variant=metal,uki=linux.efi`,
  );
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const given = readOptions(command, z.object({ tag: z.string(), parts: z.array(z.string()) }));
    const context = await invocation.openContext();
    const parts = await Promise.all(given.parts.map((text) => readBuildPart(text, invocation.environment)));
    const built = await buildImage(context, readReference(given.tag, invocation.environment), parts);
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
  command.action(async (source: string, target: string) => {
    const invocation = await beginInvocation(command, composition);
    const { environment } = invocation;
    const tagged = await tagImage(
      await invocation.openContext(),
      readReference(source, environment),
      readReference(target, environment),
    );
    invocation.print(tagged, ({ reference, digest }) => `${reference} ${digest}\n`);
  });
}

function registerPush(program: Command, composition: Composition): void {
  const command = program.command("push").argument(
    "<ref>",
    "HOST/REPOSITORY:TAG, as the image is called in the cache",
  ).description("publish a cached image");
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const context = await invocation.openContext();
    const pushed = await pushImage(context, readReference(text, invocation.environment), {
      signal: invocation.signal,
    });
    invocation.print(
      pushed,
      ({ reference, digest, transferredBytes }) => `${reference} ${digest} ${transferredBytes} bytes sent\n`,
    );
  });
}
