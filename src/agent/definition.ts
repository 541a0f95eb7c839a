import { createHash } from "node:crypto";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { defineDomain } from "../hypervisor/define_domain.ts";
import { renderDomainXml } from "../hypervisor/domain_xml/domain.ts";
import { type Fragment, renderFragment } from "../hypervisor/domain_xml/fragment.ts";
import { renderQemuCommand } from "../hypervisor/qemu_command/command.ts";
import { quoteShell } from "../hypervisor/qemu_command/shell.ts";
import { tpmEmulatorCommand } from "../qemu/tpm_emulator.ts";
import type { AgentContext } from "./agent_context.ts";
import { makeBootCopies } from "./boot_copies.ts";
import { readDefinition, requireMachine } from "./domains.ts";
import { chooseAcceleration, chooseFirmware } from "./host_facts.ts";
import { withSource } from "./open_source.ts";
import type { DiskWishes } from "./machine_disks.ts";
import { type BootWishes, prepareBoot, requireBootable } from "./prepare_boot.ts";
import { fragmentName, type MachineWishes } from "./prepare_machine.ts";
import type { MachineDocument } from "./prepare_document.ts";
import type { OperationOptions } from "./progress.ts";
import { pullResolved } from "./pull_image.ts";
import { type ImageWish, resolveImage } from "./resolve_image.ts";
import { withLease } from "./with_lease.ts";

/** A machine in both languages. */
export type Definition = {
  readonly domainXml: string;
  readonly fragments: Readonly<Record<Fragment, string>>;
  readonly qemuCommand: readonly string[];
};

/** Where a machine's TPM is when no libvirt keeps one for it. */
export function tpmPlaceOf({ directory }: Pick<MachineDocument, "directory">) {
  return { stateDirectory: join(directory, "tpm"), socketPath: join(directory, "tpm.sock") };
}

/** `isMerged`: whether a fragment may become a part of somebody's domain, and must have the files that it speaks of. */
export type MachineDefinitionOptions = { readonly isMerged?: boolean };

/**
 * The definitions made when the machine was prepared.
 *
 * @throws {ShimError} MACHINE_NOT_FOUND; as `makeBootCopies`
 */
export async function definitionOfMachine(
  context: AgentContext,
  id: string,
  { isMerged = true }: MachineDefinitionOptions = {},
): Promise<Definition> {
  const machine = await requireMachine(context, id);
  if (machine.qemuCommand.includes("-tpmdev")) {
    const command = quoteShell(tpmEmulatorCommand(tpmPlaceOf(machine))).replaceAll(/ \\\n */g, " ");
    context.note(`plain QEMU wants the machine's TPM to be there before it: ${command}`);
  }
  const read = (fragment: Fragment) =>
    readDefinition(machine, join(machine.directory, fragmentName(fragment)));
  const fragments = { os: await read("os"), disks: await read("disks") };
  if (isMerged && context.isRoot) {
    await makeBootCopies(context, machine);
    if (givesAway(context, fragments)) {
      context.note(
        `machine "${id}" was prepared by an earlier version: under root's libvirt its fragments give files of the cache to ` +
          'QEMU\'s user, unless the domain has <seclabel type="none" model="dac"/>',
      );
    }
  }
  return {
    domainXml: await readDefinition(machine, machine.domainXml),
    fragments,
    qemuCommand: machine.qemuCommand,
  };
}

/** Whether fragments say nothing of the owner of files that are not the machine's. */
function givesAway(context: AgentContext, { os, disks }: Definition["fragments"]): boolean {
  const isUnlabelled = disks.includes("<source ") && !disks.includes("<seclabel ");
  return isUnlabelled || os.includes(`<kernel>${join(context.rootDirectory, "images")}/`);
}

export type ImageDefinitionWish = ImageWish & BootWishes & {
  readonly machine: Omit<MachineWishes, keyof DiskWishes | "dataDisks" | "provisioning">;
  /** What of it is to become a part of somebody's domain. */
  readonly fragment?: Fragment | undefined;
};

/**
 * How an image would be booted without a machine: its disks are the cached layers themselves, and so read-only.
 *
 * @throws {ShimError} whatever preparing throws; BOOT_MODE_IMPOSSIBLE for UEFI, whose variable store must be a machine's
 */
export async function definitionOfImage(
  context: AgentContext,
  wish: ImageDefinitionWish,
  options: OperationOptions,
): Promise<Definition> {
  return await withLease(context, options, (leased) => defineImage(leased, wish, options));
}

async function defineImage(
  context: AgentContext,
  wish: ImageDefinitionWish,
  options: OperationOptions,
): Promise<Definition> {
  const pulled = await withSource(context, wish, async (source) => {
    const image = await resolveImage(context, wish, { source, signal: options.signal });
    requireBootable(image, wish);
    return await pullResolved(context, image, options);
  });
  const { image } = pulled;
  const boot = await prepareBoot(context, pulled, { wish, signal: options.signal });
  if (boot.firmware === "uefi") {
    throw new ShimError(
      "BOOT_MODE_IMPOSSIBLE",
      `Cannot define a domain for image "${image.name}" alone: UEFI writes into a variable store, which only a machine has`,
      {
        details: {
          modes: boot.modes,
          remedy: `run: bootshim prepare ${image.name} --machine ID; then give that ID`,
        },
      },
    );
  }
  if (wish.fragment === "os" && context.isRoot && boot.kernel !== null) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot give what boots of image "${image.name}" alone: root's libvirt would give the cached kernel to QEMU's user, ` +
        "and only a machine has copies of its own",
      { details: { remedy: `run: bootshim prepare ${image.name} --machine ID; then give that ID` } },
    );
  }
  context.note("without a machine the disks are the cached layers, read-only");
  const { id } = wish.machine;
  const definition = defineDomain({
    boot,
    machine: {
      id,
      uuid: wish.machine.uuid ?? uuidOf(image.chosen.descriptor.digest),
      disks: boot.disks.map(({ path, format, serial }) => ({
        path,
        format,
        serial,
        readOnly: true,
        backing: null,
      })),
      nvramPath: null,
      consoleLogPath: join(context.rootDirectory, `${id}.console.log`),
      ignitionPath: null,
      runtimeDirectory: null,
    },
    wishes: wish.machine,
    host: {
      acceleration: await chooseAcceleration(context, {
        architecture: boot.architecture,
        acceleration: wish.machine.acceleration,
        signal: options.signal,
      }),
      uefiFirmware: await chooseFirmware(context, boot.architecture),
      keepOwnership: context.isRoot,
    },
  });
  return {
    domainXml: renderDomainXml(definition),
    fragments: {
      os: renderFragment(definition, "os", { copies: null }),
      disks: renderFragment(definition, "disks", { copies: null }),
    },
    qemuCommand: renderQemuCommand(definition),
  };
}

/** The same image gives the same text: a UUID of RFC 9562's version 8, made of the manifest's digest. */
function uuidOf(digest: string): string {
  const hex = createHash("sha256").update(digest).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${
    hex.slice(20, 32)
  }`;
}
