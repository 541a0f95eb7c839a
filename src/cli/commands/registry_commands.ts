import type { Command } from "commander";
import { z } from "zod";
import { listReferrers, listTags } from "../../agent/list_registry.ts";
import { ShimError } from "../../errors.ts";
import { parseReference, type RegistryReference } from "../../image/reference.ts";
import { formatColumns } from "../columns.ts";
import { addExamples } from "../examples.ts";
import { globalOptions } from "../global_options.ts";
import { beginInvocation, type Composition, readOptions } from "../invocation.ts";
import { printable } from "../printable.ts";

const referrersOptions = globalOptions.extend({ type: z.string().optional() });

/** `tags` and `referrers`: what a registry says of a repository. */
export function registerRegistryCommands(program: Command, composition: Composition): void {
  registerTags(program, composition);
  registerReferrers(program, composition);
}

function registerTags(program: Command, composition: Composition): void {
  const command = program.command("tags").argument("<repository>", "HOST/REPOSITORY")
    .description("list the tags of a repository, as its registry has them");
  addExamples(command, ["tags registry.example.org/os/linux"]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const reference = readRegistryReference(text);
    const tags = await listTags(await invocation.openContext(), reference, { signal: invocation.signal });
    invocation.print(
      { repository: `${reference.host}/${reference.repository}`, tags },
      () => tags.map((tag) => `${tag}\n`).join(""),
    );
  });
}

function registerReferrers(program: Command, composition: Composition): void {
  const command = program.command("referrers").argument("<ref>", "HOST/REPOSITORY:TAG")
    .option("--type <type>", "only those of this artifact type")
    .description("list what refers to an image: signatures, bills of materials; nothing of it is verified");
  addExamples(command, ["referrers registry.example.org/os/linux:1"]);
  command.action(async (text: string) => {
    const invocation = await beginInvocation(command, composition);
    const { type } = readOptions(command, referrersOptions);
    const reference = readRegistryReference(text);
    const context = await invocation.openContext();
    const referrers = await listReferrers(context, reference, {
      artifactType: type,
      signal: invocation.signal,
    });
    invocation.print(
      referrers,
      () =>
        referrers.length === 0 ? "" : formatColumns(
          ["DIGEST", "SIZE", "TYPE"],
          referrers.map((each) => [each.digest, String(each.sizeBytes), printable(each.artifactType)]),
        ),
    );
  });
}

/** @throws {ShimError} REFERENCE_INVALID, for an image layout too */
export function readRegistryReference(text: string): RegistryReference {
  const reference = parseReference(text);
  if (reference.transport === "docker") return reference;
  throw new ShimError(
    "REFERENCE_INVALID",
    `Cannot ask a registry about ${JSON.stringify(text)}: it is an image layout, must be HOST/REPOSITORY`,
  );
}
