import { ShimError } from "../errors.ts";
import type { DomainBoot, DomainDefinition, DomainDisk, DomainNetwork } from "./domain_definition.ts";

/**
 * C0, DEL, C1, lone surrogates and the two noncharacters that XML 1.0 cannot carry.
 * @see https://www.w3.org/TR/2008/REC-xml-20081126/#charsets (XML 1.0, fifth edition, section 2.2)
 */
const UNUSABLE_CHARACTER = /[\p{Cc}\p{Cs}\uFFFE\uFFFF]/u;
const MACHINE_ID = /^[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** virtio-blk carries exactly 20 bytes (VIRTIO 1.2, section 5.2.6); the characters are those of libvirt's schema, less the space. */
const SERIAL = /^[A-Za-z0-9_.+-]{1,20}$/;
const NETWORK_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$/;
/** An address of one station (the lowest bit of the first byte is clear), as libvirt's schema wants it. */
const MAC_ADDRESS = /^[0-9a-f][02468ace](?::[0-9a-f]{2}){5}$/;
/** vda to vdz. */
const MAX_DISKS = 26;

/**
 * Gives the definition back when both renderings can carry every value of it exactly and no value can mean more than
 * it says (a protocol, an option, an element).
 *
 * @throws {ShimError} REQUEST_INVALID for a name, uuid, size, path, serial or network out of its grammar
 * @throws {ShimError} CMDLINE_INVALID for a command line with control characters or broken text
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE for a disk boot without a disk, or a firmware that the architecture lacks
 */
export function checkDomainDefinition(definition: DomainDefinition): DomainDefinition {
  requireMachineId(definition.name);
  requireUuid(definition.uuid);
  requireMachineSize(definition);
  requirePath("console log", definition.consoleLogPath);
  if (definition.ignitionPath !== null) requireIgnition(definition.ignitionPath);
  requireRuntimeDirectory(definition);
  requireBoot(definition.boot, definition);
  requireDisks(definition.disks);
  requireNetwork(definition.network);
  return definition;
}

/** @throws {ShimError} REQUEST_INVALID unless `id` is a machine id of CONTRACT.md section 5 */
export function requireMachineId(id: string): string {
  if (MACHINE_ID.test(id)) return id;
  throw invalid(
    `Cannot use machine id ${quote(id)}: ` +
      `must be 1 to 64 of a-z, 0-9, "." and "-", with a letter or digit at both ends`,
  );
}

/** @throws {ShimError} REQUEST_INVALID unless `uuid` is the lower-case text form of RFC 9562 section 4 */
export function requireUuid(uuid: string): string {
  if (UUID.test(uuid)) return uuid;
  throw invalid(
    `Cannot use uuid ${quote(uuid)}: must be 32 lower-case hexadecimal digits in groups of 8-4-4-4-12`,
  );
}

/** Beyond any machine that QEMU runs: what is asked for is a slip, and better told before anything is transferred. */
const MAX_MEMORY_MIB = 16 * 1024 * 1024;
const MAX_CPUS = 512;

/** @throws {ShimError} REQUEST_INVALID unless memory and processors are whole, and what a machine can have */
export function requireMachineSize(
  { memoryMib, cpus }: Pick<DomainDefinition, "memoryMib" | "cpus">,
): void {
  requireCount("memory in MiB", memoryMib, MAX_MEMORY_MIB);
  requireCount("number of CPUs", cpus, MAX_CPUS);
}

function requireBoot(boot: DomainBoot, { architecture, disks }: DomainDefinition): void {
  if (boot.mode === "kernel") {
    requirePath("kernel", boot.kernelPath);
    if (boot.initramfsPath !== null) requirePath("initramfs", boot.initramfsPath);
    requireCmdline(boot.cmdline);
  } else if (boot.mode === "iso") {
    requirePath("ISO", boot.isoPath);
  } else if (disks.length === 0) {
    throw impossible('boot mode "disk" without a disk, expected at least one');
  }
  if (boot.firmware.kind === "uefi") {
    requirePath("UEFI loader", boot.firmware.loaderPath);
    requirePath("NVRAM", boot.firmware.nvramPath);
    if (boot.firmware.secureBoot && architecture !== "amd64") {
      throw impossible(
        `Secure Boot on architecture "${architecture}", whose variable store QEMU protects on "amd64" only`,
      );
    }
  } else if (boot.firmware.kind === "bios" && architecture !== "amd64") {
    throw impossible(`firmware "bios" on architecture "${architecture}", which has "uefi" only`);
  }
}

function requireCmdline(cmdline: string): void {
  if (!UNUSABLE_CHARACTER.test(cmdline)) return;
  throw new ShimError(
    "CMDLINE_INVALID",
    `Cannot use command line ${quote(cmdline)}: ` +
      `holds a control character or broken text, must be one line of text`,
  );
}

function requireDisks(disks: readonly DomainDisk[]): void {
  if (disks.length > MAX_DISKS) {
    throw invalid(`Cannot define domain: ${disks.length} disks, must be at most ${MAX_DISKS}`);
  }
  for (const { path, format, serial, backing } of disks) {
    requirePath("disk", path);
    if (backing) requirePath("backing file", backing.path);
    if (backing && format === "raw") {
      throw invalid(
        `Cannot define domain: raw disk ${quote(path)} has a backing file, only "qcow2" can have one`,
      );
    }
    if (serial !== null && !SERIAL.test(serial)) {
      throw invalid(
        `Cannot use disk serial ${quote(serial)}: must be 1 to 20 letters, digits, "_", ".", "+" or "-"`,
      );
    }
  }
}

function requireNetwork(network: DomainNetwork): void {
  if (network.kind === "none") return;
  if (network.kind !== "user" && !NETWORK_NAME.test(network.name)) {
    throw invalid(
      `Cannot use network ${quote(network.name)}: ` +
        `must be 1 to 63 letters, digits, "_", ".", ":" or "-", the first a letter, digit or "_"`,
    );
  }
  if (!MAC_ADDRESS.test(network.macAddress)) {
    throw invalid(
      `Cannot use MAC address ${quote(network.macAddress)}: ` +
        `must be lower-case unicast, as in 52:54:00:01:02:03`,
    );
  }
}

function requirePath(what: string, path: string): void {
  // Absolute also keeps "json:", "nbd:" and "-x" from being read as anything but a file name.
  if (path.length > 1 && path.startsWith("/") && !UNUSABLE_CHARACTER.test(path)) return;
  throw invalid(
    `Cannot use ${what} path ${quote(path)}: must be absolute and without control characters or broken text`,
  );
}

/** libvirt hands this one path to QEMU in XML's spelling, and with its commas as they are: another file, or an option. */
function requireIgnition(path: string): void {
  requirePath("Ignition", path);
  if (!/[,<>&"']/.test(path)) return;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use Ignition path ${quote(path)}: libvirt cannot hand on a path with any of , < > & " '`,
    { details: { remedy: "choose another --root: the machine's folder in it holds the Ignition file" } },
  );
}

/** unix(7): a socket's path has at most 107 bytes; the longest name in there is `agent.sock`. */
function requireRuntimeDirectory({ runtimeDirectory, tpm }: DomainDefinition): void {
  if (runtimeDirectory === null) {
    if (tpm) {
      throw invalid("Cannot define domain: a TPM without runtime directory, must have one for its socket");
    }
    return;
  }
  requirePath("runtime directory", runtimeDirectory);
  if (!canHoldSockets(runtimeDirectory)) {
    throw invalid(
      `Cannot use runtime directory ${quote(runtimeDirectory)}: its path is too long for a socket in it`,
    );
  }
}

/** Whether a socket in that directory has a path that the kernel takes. */
export function canHoldSockets(directory: string): boolean {
  return new TextEncoder().encode(`${directory}/agent.sock`).length <= 107;
}

function requireCount(what: string, count: number, limit: number): void {
  if (!Number.isSafeInteger(count) || count < 1) {
    throw invalid(`Cannot define domain: ${what} is "${count}", must be a positive integer`);
  }
  if (count > limit) throw invalid(`Cannot define domain: ${what} is ${count}, must be at most ${limit}`);
}

function invalid(message: string): ShimError {
  return new ShimError("REQUEST_INVALID", message);
}

function impossible(what: string): ShimError {
  return new ShimError("BOOT_MODE_IMPOSSIBLE", `Cannot define domain: ${what}`);
}

/** Escaped, so that a hostile value stays on its line of the log; JSON alone lets DEL and C1 through. */
function quote(value: string): string {
  return JSON.stringify(value).replace(
    /\p{Cc}/gu,
    (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
