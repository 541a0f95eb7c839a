import { resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import type { AgentContext } from "../../agent/agent_context.ts";
import type { BootWishes } from "../../agent/prepare_boot.ts";
import type { MachineWishes } from "../../agent/prepare_machine.ts";
import { MAX_PROVISIONING_BYTES } from "../../agent/provisioning.ts";
import { parseSize } from "../../agent/quantity.ts";
import type { ImageWish } from "../../agent/resolve_image.ts";
import type { Environment } from "../../config/settings.ts";
import { ShimError } from "../../errors.ts";
import { requireArchitecture, requireVariant } from "../../image/platform.ts";
import {
  type LayoutLocation,
  parseLayoutLocation,
  parseReference,
  type Reference,
} from "../../image/reference.ts";
import { machineUuid } from "../../machine/machine_id.ts";
import { readUserFile } from "../user_file.ts";

/** Reads a reference as the user typed it; a layout is taken relative to the working directory. */
export function readReference(text: string, environment: Environment): Reference {
  const reference = parseReference(text);
  if (reference.transport === "docker") return reference;
  if (reference.transport === "oci-archive") {
    return { ...reference, file: absolutePath(reference.file, environment) };
  }
  return { ...reference, directory: absolutePath(reference.directory, environment) };
}

/** Reads where a whole layout is, as the user typed it. */
export function readLayoutLocation(text: string, environment: Environment): LayoutLocation {
  const { transport, path } = parseLayoutLocation(text);
  return { transport, path: absolutePath(path, environment) };
}

function absolutePath(path: string, { workingDirectory }: Environment): string {
  const absolute = resolve(workingDirectory, path);
  if (!absolute.includes(":")) return absolute;
  // In the reference it becomes, all after the colon would be the image's name.
  throw new ShimError(
    "REFERENCE_INVALID",
    `Cannot use image layout "${absolute}": its path holds a colon, which ends a path in references`,
    { details: { remedy: "work in a folder without one, or reach it by a symbolic link" } },
  );
}

export function addImageOptions(command: Command): Command {
  return command
    .option("--arch <word>", "architecture: amd64, arm64 (default: the host's)")
    .option("--variant <word>", "variant: virtualization, metal", "virtualization")
    .option("--pull <policy>", "missing, always or never", "missing");
}

export const imageOptions = z.object({
  // Their refusals pass through zod as they are.
  arch: z.string().transform(requireArchitecture).optional(),
  variant: z.string().transform(requireVariant),
  pull: z.enum(["missing", "always", "never"]),
});

export function imageWishOf(
  context: AgentContext,
  reference: Reference,
  options: z.infer<typeof imageOptions>,
): ImageWish {
  return {
    reference,
    architecture: options.arch ?? context.hostArchitecture,
    variant: options.variant,
    pull: options.pull,
  };
}

export function addBootOptions(command: Command): Command {
  return command
    .option("--boot <mode>", "auto, disk, kernel, uki or iso", "auto")
    .option("--firmware <kind>", "auto, bios or uefi", "auto")
    .option("--cmdline <text>", "kernel command line, in place of the image's")
    .option(
      "--append <KEY[=VALUE]>",
      "replace or add one kernel parameter (repeatable)",
      (value: string, before: string[]) => [...before, value],
      [],
    );
}

export const bootOptions = z.object({
  boot: z.enum(["auto", "disk", "kernel", "uki", "iso"]),
  firmware: z.enum(["auto", "bios", "uefi"]),
  cmdline: z.string().optional(),
  append: z.array(z.string()),
});

export function bootWishesOf(options: z.infer<typeof bootOptions>): BootWishes {
  return {
    boot: options.boot,
    firmware: options.firmware,
    cmdline: options.cmdline,
    appends: options.append,
  };
}

export function addMachineOptions(command: Command): Command {
  return command
    .option("--disk-size <size>", "size of the machine's disk, such as 20GiB; grows, never shrinks")
    .option("--disk-format <format>", "of the machine's disk: auto, raw or qcow2", "auto")
    .option("--clone <method>", "how its disk is made: auto, reflink, overlay or copy", "auto")
    .option("--memory <size>", "memory", "1GiB")
    .option("--cpus <n>", "processors", "1")
    .option("--accel <kind>", "auto, kvm or tcg", "auto")
    .option("--network <name>", "none, user, NAME of a libvirt network, or bridge:NAME", "user")
    .option("--tpm", "a TPM 2.0, emulated by swtpm")
    .option("--secure-boot", "UEFI that checks signatures")
    .option("--hugepages", "memory from the host's pool of huge pages")
    .option(
      "--data-disk <SIZE[,SERIAL]>",
      "one more disk, empty (repeatable)",
      (value: string, before: string[]) => [...before, value],
      [],
    )
    .option("--ignition <file>", "an Ignition configuration for the guest")
    .option("--user-data <file>", "cloud-init's user-data, given as a NoCloud seed")
    .option("--metadata <file>", "cloud-init's meta-data, in place of the one that is made")
    .option("--uuid <uuid>", "the machine's UUID (default: drawn at random)");
}

export const machineOptions = z.object({
  diskSize: z.string().optional(),
  diskFormat: z.enum(["auto", "raw", "qcow2"]),
  clone: z.enum(["auto", "reflink", "overlay", "copy"]),
  memory: z.string(),
  cpus: z.string(),
  accel: z.enum(["auto", "kvm", "tcg"]),
  network: z.string().min(1),
  tpm: z.boolean().default(false),
  secureBoot: z.boolean().default(false),
  hugepages: z.boolean().default(false),
  dataDisk: z.array(z.string()).default([]),
  ignition: z.string().optional(),
  userData: z.string().optional(),
  metadata: z.string().optional(),
  uuid: machineUuid.transform((uuid) => uuid.toLowerCase()).optional(),
});

const BYTES_PER_MIB = 2 ** 20;

/** Everything about a machine but its id; reads the files it names. @throws {ShimError} REQUEST_INVALID, LIMIT_EXCEEDED */
export async function readMachineWishes(
  options: z.infer<typeof machineOptions>,
  { workingDirectory }: Pick<Environment, "workingDirectory">,
): Promise<Omit<MachineWishes, "id">> {
  const memoryBytes = parseSize(options.memory, "--memory");
  if (memoryBytes === 0 || memoryBytes % BYTES_PER_MIB !== 0) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot use --memory "${options.memory}": ${memoryBytes} bytes, must be a positive multiple of 1 MiB`,
    );
  }
  if (!/^[1-9][0-9]{0,3}$/.test(options.cpus)) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot use --cpus ${JSON.stringify(options.cpus)}: must be a whole number from 1`,
    );
  }
  const read = async (path: string | undefined, option: string) =>
    path === undefined
      ? null
      : await readUserFile(resolve(workingDirectory, path), { option, maxBytes: MAX_PROVISIONING_BYTES });
  return {
    uuid: options.uuid ?? null,
    diskSizeBytes: options.diskSize === undefined ? null : parseSize(options.diskSize, "--disk-size"),
    diskFormat: options.diskFormat,
    clone: options.clone,
    memoryMib: memoryBytes / BYTES_PER_MIB,
    cpus: Number(options.cpus),
    acceleration: options.accel,
    network: networkOf(options.network),
    tpm: options.tpm,
    secureBoot: options.secureBoot,
    hugepages: options.hugepages,
    dataDisks: options.dataDisk.map(dataDiskOf),
    provisioning: {
      ignition: await read(options.ignition, "--ignition"),
      userData: await read(options.userData, "--user-data"),
      metadata: await read(options.metadata, "--metadata"),
    },
  };
}

function dataDiskOf(text: string, index: number): MachineWishes["dataDisks"][number] {
  const [size = "", serial = `data${index + 1}`] = text.split(",", 2);
  return { sizeBytes: parseSize(size, "--data-disk"), serial };
}

/**
 * Refuses wishes for a machine's disk where there is no machine: they would have no effect.
 *
 * @throws {ShimError} REQUEST_INVALID
 */
export function requireNoDiskWishes(
  { diskSizeBytes, diskFormat, clone }: Omit<MachineWishes, "id">,
  remedy: string,
): void {
  const vain = diskSizeBytes !== null
    ? "--disk-size"
    : diskFormat !== "auto"
    ? "--disk-format"
    : clone !== "auto"
    ? "--clone"
    : undefined;
  if (vain === undefined) return;
  throw new ShimError("REQUEST_INVALID", `Cannot use ${vain}: without a machine there is no disk to make`, {
    details: { remedy },
  });
}

function networkOf(word: string): MachineWishes["network"] {
  if (word === "none" || word === "user") return { kind: word };
  if (word.startsWith("bridge:")) return { kind: "bridge", name: word.slice("bridge:".length) };
  return { kind: "network", name: word };
}
