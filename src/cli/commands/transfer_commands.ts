import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { z } from "zod";
import { type ExportedLayout, exportImages } from "../../agent/export_image.ts";
import { type ImportedImages, importImages } from "../../agent/import_image.ts";
import { type PushedImage, pushImage } from "../../agent/push_image.ts";
import { ShimError } from "../../errors.ts";
import { requireArchitecture, requireVariant } from "../../image/platform.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";
import { readLayoutLocation, readReference } from "./wish_options.ts";

/** Moving images out of the cache and into it: `push`, `export`, `import`. */
export function registerTransferCommands(program: Command, composition: Composition): void {
  registerPush(program, composition);
  registerExport(program, composition);
  registerImport(program, composition);
}

const pushOptions = z.object({ pushSubManifests: z.boolean().default(false) });

function registerPush(program: Command, composition: Composition): void {
  const command = program.command("push")
    .argument("<ref>", "HOST/REPOSITORY:TAG, as the image is called in the cache")
    .description("publish a cached image")
    .option("--push-sub-manifests", "publish each manifest also as TAG-ARCH and TAG-VARIANT-ARCH");
  addExamples(command, [
    "push 127.0.0.1:5000/os/demo:1",
    "push 127.0.0.1:5000/os/demo:1 --push-sub-manifests",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const { pushSubManifests: hasSubManifests } = readOptions(command, pushOptions);
    const reference = readReference(text, invocation.environment);
    const context = await invocation.openContext();
    const pushed = await invocation.withProgress((onProgress) =>
      pushImage(context, reference, { hasSubManifests, signal: invocation.signal, onProgress })
    );
    invocation.print(pushed, formatPushed);
  });
}

function formatPushed({ reference, digest, transferredBytes, mountedBytes, tags }: PushedImage): string {
  const mounted = mountedBytes > 0 ? `, ${mountedBytes} bytes mounted` : "";
  return [
    `${reference} ${digest} ${transferredBytes} bytes sent${mounted}\n`,
    ...tags.map((each) => `${each.tag} ${each.digest}\n`),
  ].join("");
}

const exportOptions = z.object({ arch: z.string().optional(), variant: z.string().optional() });

function registerExport(program: Command, composition: Composition): void {
  const command = program.command("export")
    // A list of arguments must be the last one, so the target is taken from its end.
    .argument("<ref-and-target...>", "cached images, then oci-archive:FILE or oci:DIR")
    .usage("[options] <ref>... oci-archive:FILE|oci:DIR")
    .description("write cached images into an image layout, to carry them where there is no registry")
    .option("--arch <word>", "only manifests for this architecture (default: all that are complete)")
    .option("--variant <word>", "only manifests for this variant (default: all that are complete)");
  addExamples(command, [
    "export registry.example.org/os/linux:1 oci-archive:linux.tar",
    "export 127.0.0.1:5000/os/demo:1 127.0.0.1:5000/os/demo:2 oci:./layout --arch arm64",
  ]);
  command.action(async (words: readonly string[]) => {
    const invocation = await beginInvocation(command, composition);
    const { environment } = invocation;
    const { arch, variant } = readOptions(command, exportOptions);
    const [target = "", ...texts] = words.toReversed();
    if (texts.length === 0) {
      throw new ShimError("REQUEST_INVALID", "Cannot export: must name an image and where to write it", {
        details: { remedy: "see: bootshim export --help" },
      });
    }
    const wish = {
      references: texts.reverse().map((text) => readReference(text, environment)),
      target: readLayoutLocation(target, environment),
      architecture: arch === undefined ? undefined : requireArchitecture(arch),
      variant: variant === undefined ? undefined : requireVariant(variant),
    };
    const context = await invocation.openContext();
    const exported = await invocation.withProgress((onProgress) =>
      exportImages(context, wish, { signal: invocation.signal, onProgress })
    );
    invocation.print(exported, formatExported);
  });
}

function formatExported({ target, images, sizeBytes }: ExportedLayout): string {
  const lines = images.map(({ reference, digest, platforms }) => {
    const words = platforms.map((each) => `${each.architecture ?? "any"}/${each.variant ?? "any"}`);
    return `${reference} ${digest} ${words.join(",")}`;
  });
  return [...lines, `${target} ${prettyBytes(sizeBytes, { binary: true })}`]
    .map((line) => `${printable(line)}\n`).join("");
}

function registerImport(program: Command, composition: Composition): void {
  const command = program.command("import")
    .argument("<layout>", "oci-archive:FILE or oci:DIR")
    .description("take every image of an image layout into the cache, verified, under the names it has there")
    .option("--tag <name>", "what to call the layout's only image, HOST/REPOSITORY:TAG");
  addExamples(command, [
    "import oci-archive:linux.tar",
    "import oci:./layout --tag registry.example.org/os/linux:1",
  ]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const { tag } = readOptions(command, z.object({ tag: z.string().optional() }));
    const wish = {
      source: readLayoutLocation(text, invocation.environment),
      name: tag === undefined ? undefined : readReference(tag, invocation.environment),
    };
    const context = await invocation.openContext();
    const imported = await invocation.withProgress((onProgress) =>
      importImages(context, wish, { signal: invocation.signal, onProgress })
    );
    invocation.print(imported, formatImported);
  });
}

function formatImported({ images, transferredBytes }: ImportedImages): string {
  return [
    ...images.map(({ reference, digest }) => `${reference} ${digest}\n`),
    `${transferredBytes} bytes taken in\n`,
  ].join("");
}
