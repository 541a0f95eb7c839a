import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { z } from "zod";
import { checkCache, type CheckedCache, requireSoundCache } from "../../agent/check_cache.ts";
import { collectCache, type CollectedCache } from "../../agent/collect_cache.ts";
import { pinImage } from "../../agent/pin_image.ts";
import { parseDuration, parseSize } from "../../agent/quantity.ts";
import { type RemovedImage, removeImage } from "../../agent/remove_image.ts";
import type { BootshimClient } from "../../api/client.ts";
import type { collectedDocument, removedDocument } from "../../api/documents.ts";
import { ShimError } from "../../errors.ts";
import { parseDigest, shortDigest } from "../../image/digest.ts";
import { formatReference } from "../../image/reference.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";
import { readReference } from "./wish_options.ts";

/** Keeping the cache in order: `rm`, `pin`, `unpin`, `gc`, `check`. */
export function registerCacheCommands(program: Command, composition: Composition): void {
  registerRemove(program, composition);
  registerPin(program, composition, {
    name: "pin",
    description: "keep a cached image whatever space is wanted",
    pinned: true,
  });
  registerPin(program, composition, {
    name: "unpin",
    description: "let a pinned image be collected again",
    pinned: false,
  });
  registerCollect(program, composition);
  registerCheck(program, composition);
}

function registerCheck(program: Command, composition: Composition): void {
  const command = program.command("check").description(
    "hash every cached blob anew; damaged ones are moved away",
  )
    .option("--repair", "fetch again what images still name of them");
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const { repair } = readOptions(command, z.object({ repair: z.boolean().default(false) }));
    const context = await invocation.openContext();
    const { signal } = invocation;
    const checked = await invocation.withProgress((onProgress) =>
      checkCache(context, { isRepair: repair }, { signal, onProgress })
    );
    invocation.print(checked, formatChecked);
    requireSoundCache(checked);
  });
}

function formatChecked({ checkedBlobs, checkedDisks, checkedBytes, problems }: CheckedCache): string {
  const lines = problems.map(({ isRepaired, kind, why, quarantined }) =>
    `${isRepaired ? "repaired" : kind}: ${printable(why)}${
      quarantined === null ? "" : `; kept as ${quarantined}`
    }`
  );
  const disks = checkedDisks > 0 ? ` and ${checkedDisks} unpacked disks` : "";
  return [...lines, `checked ${checkedBlobs} blobs${disks}, ${size(checkedBytes)}`].map((line) => `${line}\n`)
    .join("");
}

function registerRemove(program: Command, composition: Composition): void {
  const command = program.command("rm").argument("<ref|digest>").description(
    "remove an image from the cache; by its digest under all its names, or one manifest of an index",
  );
  addExamples(command, ["rm registry.example.org/os/linux:1"]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const target = /^sha(?:256|512):/.test(text)
      ? { digest: parseDigest(text) }
      : { reference: readReference(text, invocation.environment) };
    const { service, signal } = invocation;
    if (service) {
      const digest = "digest" in target
        ? target.digest
        : await digestOf(service, formatReference(target.reference));
      return invocation.print(await service.removeImage(digest, { signal }), formatRemoved);
    }
    invocation.print(await removeImage(await invocation.openContext(), target, { signal }), formatRemoved);
  });
}

function formatRemoved(
  { references, digest, freedBytes }: RemovedImage | z.infer<typeof removedDocument>,
): string {
  const names = references.length > 0 ? references.map(printable) : [shortDigest(digest)];
  return names.map((name) => `removed ${name}\n`).join("") + `freed ${size(freedBytes)}\n`;
}

/** @throws {ShimError} IMAGE_NOT_FOUND */
async function digestOf(service: BootshimClient, name: string): Promise<string> {
  const image = (await service.images()).find(({ reference }) => reference === name);
  if (image) return image.digest;
  throw new ShimError("IMAGE_NOT_FOUND", `Cannot find image "${name}" in the service's cache`);
}

function registerPin(
  program: Command,
  composition: Composition,
  { name, description, pinned }: {
    readonly name: string;
    readonly description: string;
    readonly pinned: boolean;
  },
): void {
  const command = program.command(name).argument("<ref>").description(description);
  addExamples(command, [`${name} registry.example.org/os/linux:1`]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const reference = readReference(text, invocation.environment);
    const { service } = invocation;
    const name = formatReference(reference);
    const image = service
      ? (await service.pinImage(await digestOf(service, name), pinned)).find((each) =>
        each.reference === name
      )
      : await pinImage(await invocation.openContext(), reference, pinned);
    invocation.print(
      image ?? { reference: name, digest: "", pinned },
      (each) => `${each.pinned ? "pinned" : "unpinned"} ${printable(each.reference)}\n`,
    );
  });
}

const collectOptions = z.object({
  dryRun: z.boolean().default(false),
  maxBytes: z.string().optional(),
  keepFreeBytes: z.string().optional(),
  minAge: z.string().optional(),
});

function registerCollect(program: Command, composition: Composition): void {
  const command = program.command("gc").description("remove what no image, machine or operation needs")
    .option("--dry-run", "say what would go, and change nothing")
    .option(
      "--max-bytes <size>",
      "give up least recently used images until the cache takes no more than this",
    )
    .option("--keep-free-bytes <size>", "give them up until so much is free on its file system")
    .option(
      "--min-age <span>",
      "spare what is younger (default: interrupted downloads of a day, nothing else)",
    );
  addExamples(command, ["gc --dry-run", "gc --max-bytes 20GiB --min-age 7d"]);
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const { dryRun, maxBytes, keepFreeBytes, minAge } = readOptions(command, collectOptions);
    const wish = {
      isDryRun: dryRun,
      ...(maxBytes === undefined ? {} : { maxBytes: parseSize(maxBytes, "--max-bytes") }),
      ...(keepFreeBytes === undefined
        ? {}
        : { keepFreeBytes: parseSize(keepFreeBytes, "--keep-free-bytes") }),
      ...(minAge === undefined ? {} : { minAgeMs: parseDuration(minAge, "--min-age") }),
    };
    const { signal, service } = invocation;
    if (service) {
      const { isDryRun, minAgeMs, ...sizes } = wish;
      const asked = {
        dryRun: isDryRun,
        ...sizes,
        ...(minAgeMs === undefined ? {} : { minAgeSeconds: minAgeMs / 1000 }),
      };
      return invocation.print<Collected>(await service.collect(asked, { signal }), formatCollected);
    }
    invocation.print(await collectCache(await invocation.openContext(), wish, { signal }), formatCollected);
  });
}

type Collected = CollectedCache | z.infer<typeof collectedDocument>;

function formatCollected({ dryRun, images, removed, freedBytes, missingBytes }: Collected): string {
  const verb = dryRun ? "would remove" : "removed";
  return [
    ...images.map((image) => `${verb} image ${printable(image.reference)}, last used ${image.lastUsedAt}`),
    ...removed.map((file) => `${verb} ${file.kind} ${file.digest} ${size(file.sizeBytes)}`),
    `${dryRun ? "would free" : "freed"} ${size(freedBytes)}`,
    ...(missingBytes > 0
      ? [`still ${size(missingBytes)} over the budget: the rest is pinned or in use`]
      : []),
  ].map((line) => `${line}\n`).join("");
}

function size(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}
