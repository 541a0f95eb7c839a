import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { PreparedBoot } from "../boot/prepared_boot.ts";
import { ShimError } from "../errors.ts";
import { runAtMost } from "../host/at_most.ts";
import { canHoldSockets } from "../hypervisor/check_domain.ts";
import { requireMachineSize, requireUuid } from "../hypervisor/check_domain.ts";
import { defineDomain, type DomainWishes } from "../hypervisor/define_domain.ts";
import type { Acceleration } from "../hypervisor/domain_definition.ts";
import { renderDomainXml } from "../hypervisor/domain_xml/domain.ts";
import { type Fragment, FRAGMENTS, renderFragment } from "../hypervisor/domain_xml/fragment.ts";
import { renderQemuCommand } from "../hypervisor/qemu_command/command.ts";
import { mainLoop, MILLISECOND_OF_STEPS } from "../host/main_loop.ts";
import { describeIssues } from "../image/json_document.ts";
import { copyFileSparsely, writeNewFile } from "../machine/disk_file.ts";
import { type MachineId, parseMachineId } from "../machine/machine_id.ts";
import { type MachineRecord, sameWishes } from "../machine/machine_record.ts";
import type { Build, HeldMachine } from "../machine/held_machine.ts";
import type { NewFolder } from "../machine/seal_machine.ts";
import type { AgentContext } from "./agent_context.ts";
import { bootCopiesOf } from "./boot_copies.ts";
import { chooseAcceleration, chooseFirmware, requireFirmware, requireHostParts } from "./host_facts.ts";
import { type EmptyDiskWish, makeEmptyDisks } from "./empty_disks.ts";
import { type DiskPlace, type DiskWishes, makeDisks } from "./machine_disks.ts";
import type { BootWishes } from "./prepare_boot.ts";
import { type MachineDisk, type MachineDocument, machineDocument } from "./prepare_document.ts";
import type { OperationOptions } from "./progress.ts";
import {
  checkProvisioning,
  makeProvisioning,
  type ProvisioningWishes,
  recordedProvisioning,
} from "./provisioning.ts";
import type { PulledImage } from "./pull_image.ts";
import { Turns } from "./turns.ts";

/** What a caller may say about a machine. `null` leaves the choice to us. */
export type MachineWishes = DomainWishes & DiskWishes & {
  readonly id: string;
  readonly uuid: string | null;
  readonly acceleration: Acceleration | "auto";
  /** Empty disks, after those of the image. */
  readonly dataDisks: readonly EmptyDiskWish[];
  readonly provisioning: ProvisioningWishes;
};

type Parts = {
  readonly pulled: PulledImage;
  readonly boot: PreparedBoot;
  readonly wish: BootWishes;
  readonly machine: MachineWishes;
};

/** The file in a machine's folder that holds a fragment of its domain XML. */
export function fragmentName(fragment: Fragment): string {
  return `${fragment}.xml`;
}

export type MachineOptions = OperationOptions & {
  /** The machine, when the caller holds it already. */
  readonly held?: HeldMachine;
  /** The machine lives no longer than the caller holds it. */
  readonly isThrownAway?: boolean;
  /** Told when the machine was made now, and not found as it is wished. */
  readonly onMade?: (() => void) | undefined;
};

/** However many machines are asked for at once: more would only share the disk, and each copy has its buffers. */
const BUILDING = new Turns(8);

const DOMAIN_XML_NAME = "domain.xml";
const CONSOLE_LOG_NAME = "console.log";
const NVRAM_NAME = "nvram.fd";
/** Dozens of small files tell of firmware, and most machines boot without. */
const NOT_ASKED_FOR = { firmware: null, reason: "the machine boots without UEFI" } as const;

/**
 * Makes a machine's folder: disks, NVRAM, definitions and record, complete or absent. The same id with the same wishes
 * for the same manifest is the same machine; nothing is touched then.
 *
 * @throws {ShimError} CONFLICT when the id is taken by a machine of other wishes; REQUEST_INVALID, LIMIT_EXCEEDED,
 *   NO_SPACE, HYPERVISOR_UNAVAILABLE
 */
export async function prepareMachine(
  context: AgentContext,
  parts: Parts,
  options: MachineOptions,
): Promise<MachineDocument> {
  const id = parseMachineId(parts.machine.id);
  checkProvisioning(parts.machine.provisioning);
  const wishes = recordedWishes(parts);
  const build: Build = async (directory, folder) =>
    await BUILDING.take(
      async () => await buildMachine(context, { ...parts, id, directory, folder, options }),
      { signal: options.signal },
    );
  const create = async (held: HeldMachine) =>
    await held.create(build, { isUuidGiven: parts.machine.uuid !== null });
  const { held, signal, onMade } = options;
  const { record, created } = await (held ? create(held) : context.machines.hold(id, create, { signal }));
  if (!sameWishes(record.wishes, wishes)) throw conflict(id, record.wishes, wishes);
  if (created) onMade?.();
  return documentOf(record);
}

/**
 * Refuses before any transfer what no image can make right.
 *
 * @throws {ShimError} REQUEST_INVALID
 */
export function requireMachineWishes(machine: MachineWishes): void {
  parseMachineId(machine.id);
  if (machine.uuid !== null) requireUuid(machine.uuid);
  requireMachineSize(machine);
}

/**
 * The document that `prepare` gave for a machine, read from its record.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID when the record was changed to hold something else
 */
export function documentOf(record: MachineRecord): MachineDocument {
  const parsed = machineDocument.safeParse(record.document);
  if (parsed.success) return parsed.data;
  throw new ShimError(
    "CACHE_LAYOUT_INVALID",
    `Cannot use the record of machine "${record.id}": ${describeIssues(parsed.error)}`,
    { cause: parsed.error, details: { remedy: `give the machine up with: bootshim release ${record.id}` } },
  );
}

/** Everything that makes one machine differ from another, the manifest it was made from among it. */
function recordedWishes({ pulled, wish, machine }: Parts): MachineRecord["wishes"] {
  return {
    manifestDigest: pulled.image.chosen.descriptor.digest,
    boot: wish.boot,
    firmware: wish.firmware,
    cmdline: wish.cmdline ?? null,
    appends: [...wish.appends],
    uuid: machine.uuid,
    diskSizeBytes: machine.diskSizeBytes,
    diskFormat: machine.diskFormat,
    clone: machine.clone,
    memoryMib: machine.memoryMib,
    cpus: machine.cpus,
    acceleration: machine.acceleration,
    network: { ...machine.network },
    hugepages: machine.hugepages,
    tpm: machine.tpm,
    secureBoot: machine.secureBoot,
    dataDisks: machine.dataDisks.map((disk) => ({ ...disk })),
    ...recordedProvisioning(machine.provisioning),
  };
}

function conflict(id: MachineId, before: MachineRecord["wishes"], now: MachineRecord["wishes"]): ShimError {
  const differing = Object.keys({ ...before, ...now }).filter((key) =>
    !sameWishes({ value: before[key] ?? null }, { value: now[key] ?? null })
  );
  const [was, is] = [before["manifestDigest"], now["manifestDigest"]];
  const moved = was === is
    ? ""
    : `: it was made from manifest ${String(was)}, the reference now means ${String(is)}`;
  return new ShimError(
    "CONFLICT",
    `Cannot prepare machine "${id}": it exists with another ${differing.join(", ")}${moved}`,
    {
      details: {
        id,
        differing,
        before: pick(before, differing),
        now: pick(now, differing),
        remedy: `choose another id, or give it up with: bootshim release ${id}`,
      },
    },
  );
}

function pick(wishes: MachineRecord["wishes"], keys: readonly string[]): MachineRecord["wishes"] {
  return Object.fromEntries(keys.map((key) => [key, wishes[key] ?? null]));
}

/** Beside a CD there is a disk to install to when one is wished for; else the image's own. */
async function makeBootDisks({ boot, machine }: Building, place: DiskPlace): Promise<MachineDisk[]> {
  const { diskSizeBytes } = machine;
  if (boot.mode !== "iso" || diskSizeBytes === null) return await makeDisks(boot.disks, machine, place);
  return await makeEmptyDisks("scratch", [{ sizeBytes: diskSizeBytes, serial: "scratch" }], place);
}

/**
 * The kernel and what goes with it. root's libvirt gives them to QEMU's user when the machine has a TPM (see
 * `domain_xml/ownership.ts`), so that machine has copies: the cached layers belong to all.
 */
async function makeBootFiles(
  { context, boot, machine }: Building & { readonly context: AgentContext },
  { directory, place, fileSystem, signal }: DiskPlace,
): Promise<PreparedBoot> {
  if (!machine.tpm || !context.isRoot) return boot;
  const copy = async (path: string | null, name: string) => {
    if (path === null) return null;
    await copyFileSparsely(path, join(directory, name), { fileSystem, signal });
    return join(place, name);
  };
  return {
    ...boot,
    kernel: await copy(boot.kernel, "kernel"),
    initramfs: await copy(boot.initramfs, "initramfs"),
    uki: await copy(boot.uki, "uki.efi"),
  };
}

type Building = Parts & {
  readonly id: MachineId;
  readonly directory: string;
  readonly folder: NewFolder;
  readonly options: MachineOptions;
};

async function buildMachine(context: AgentContext, building: Building): Promise<MachineRecord> {
  const { pulled, boot, machine, id, directory, folder, options } = building;
  const { fileSystem } = context.machines;
  const { signal } = options;
  const place = context.machines.directoryOf(id);
  const uuid = machine.uuid ?? randomUUID();
  const acceleration = await chooseAcceleration(context, {
    architecture: boot.architecture,
    acceleration: machine.acceleration,
    signal,
  });
  await requireHostParts(machine);
  const uefiFirmware = boot.firmware === "uefi"
    ? await chooseFirmware(context, boot.architecture, { secureBoot: machine.secureBoot })
    : NOT_ASKED_FOR;
  const diskPlace = { directory, folder, place, fileSystem, signal, note: context.note };
  const provisioned = await makeProvisioning(machine.provisioning, { id, uuid }, diskPlace);
  const disks = [
    ...await makeBootDisks(building, diskPlace),
    ...await makeEmptyDisks("data", machine.dataDisks, diskPlace),
    ...(provisioned.seed ? [provisioned.seed] : []),
  ];
  const hasNvram = boot.firmware === "uefi";
  if (hasNvram) {
    const { nvramTemplatePath } = requireFirmware(uefiFirmware);
    await copyFileSparsely(nvramTemplatePath, join(directory, NVRAM_NAME), {
      fileSystem,
      signal,
      mayFollow: true,
    });
  }
  const bootFiles = await makeBootFiles({ ...building, context }, diskPlace);
  const nvram = hasNvram ? join(place, NVRAM_NAME) : null;
  await mainLoop.share(MILLISECOND_OF_STEPS);
  const definition = defineDomain({
    boot: bootFiles,
    machine: {
      id,
      uuid,
      disks,
      nvramPath: nvram,
      consoleLogPath: join(place, CONSOLE_LOG_NAME),
      ignitionPath: provisioned.ignitionPath,
      runtimeDirectory: canHoldSockets(place) ? place : null,
    },
    wishes: machine,
    host: { acceleration, uefiFirmware, keepOwnership: context.isRoot },
  });
  // A machine with a TPM boots its own files already.
  const copies = machine.tpm ? null : bootCopiesOf(place);
  const texts: readonly (readonly [name: string, text: string])[] = [
    [DOMAIN_XML_NAME, renderDomainXml(definition)],
    ...FRAGMENTS.map((fragment) =>
      [fragmentName(fragment), renderFragment(definition, fragment, { copies })] as const
    ),
  ];
  // Side by side, so that one commit of the file system's journal makes them all durable.
  await runAtMost(texts.length, texts, { signal }, async ([name, text]) => {
    await writeNewFile(join(directory, name), text, { fileSystem, folder });
  });
  const document: MachineDocument = {
    id,
    uuid,
    directory: place,
    disks,
    nvram,
    domainXml: join(place, DOMAIN_XML_NAME),
    qemuCommand: renderQemuCommand(definition),
  };
  return {
    schemaVersion: 1,
    id,
    uuid,
    createdAt: new Date().toISOString(),
    reference: pulled.image.name,
    digest: pulled.image.root.digest,
    manifestDigest: pulled.image.chosen.descriptor.digest,
    architecture: boot.architecture,
    wishes: recordedWishes(building),
    writableFiles: [
      ...disks.filter((disk) => !disk.readOnly).map((disk) => disk.path.slice(place.length + 1)),
      ...(hasNvram ? [NVRAM_NAME] : []),
    ],
    uses: usedLayers(pulled, boot, disks),
    isThrownAway: options.isThrownAway ?? false,
    document,
  };
}

/** A disk that is the machine's own whole copy needs its layer no more. */
function usedLayers(
  { layers }: PulledImage,
  boot: PreparedBoot,
  disks: readonly MachineDisk[],
): MachineRecord["uses"] {
  const roles = new Set<string>(
    disks.filter(({ method }) => method === "overlay" || method === "shared").map(({ role }) => role),
  );
  for (const role of ["kernel", "initramfs", "uki", "iso"] as const) if (boot[role] !== null) roles.add(role);
  return layers.filter(({ role }) => roles.has(role)).map(({ descriptor }) => ({
    mediaType: descriptor.mediaType,
    digest: descriptor.digest,
    sizeBytes: descriptor.sizeBytes,
  }));
}
