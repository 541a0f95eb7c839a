import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import type { PreparedBoot } from "../boot/prepared_boot.ts";
import { checkDomainDefinition } from "./check_domain.ts";
import type {
  Acceleration,
  DomainBoot,
  DomainDefinition,
  DomainDisk,
  DomainNetwork,
  UefiFirmware,
} from "./domain_definition.ts";
import type { UefiFirmwareChoice } from "./firmware.ts";

/** The machine as it lies on disk. */
export type DomainMachine = {
  readonly id: string;
  readonly uuid: string;
  /** This machine's own disks, in guest order; the first is the one a disk boot starts from. */
  readonly disks: readonly DomainDisk[];
  /** This machine's copy of the firmware's variable store, in the template's format; null unless the boot is UEFI. */
  readonly nvramPath: string | null;
  readonly consoleLogPath: string;
  readonly ignitionPath: string | null;
  /** See `DomainDefinition.runtimeDirectory`. */
  readonly runtimeDirectory: string | null;
};

/** What the user asks for; a network's MAC address follows from the uuid. */
export type DomainWishes = {
  readonly memoryMib: number;
  readonly hugepages: boolean;
  readonly cpus: number;
  readonly tpm: boolean;
  readonly secureBoot: boolean;
  readonly network:
    | { readonly kind: "none" }
    | { readonly kind: "user" }
    | { readonly kind: "network" | "bridge"; readonly name: string };
};

/** What was found out about the host. */
export type DomainHost = {
  readonly acceleration: Acceleration;
  readonly uefiFirmware: UefiFirmwareChoice;
  /** See `DomainDefinition.keepOwnership`. */
  readonly keepOwnership: boolean;
};

/**
 * Joins image, machine, wishes and host into the one definition that both renderings take.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE for a mode or firmware that no definition exists for
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when the image needs UEFI and the host has no firmware for it
 * @throws {ShimError} REQUEST_INVALID, CMDLINE_INVALID as `checkDomainDefinition`
 */
export function defineDomain(
  { boot, machine, wishes, host }: {
    readonly boot: PreparedBoot;
    readonly machine: DomainMachine;
    readonly wishes: DomainWishes;
    readonly host: DomainHost;
  },
): DomainDefinition {
  return checkDomainDefinition({
    name: machine.id,
    uuid: machine.uuid,
    architecture: boot.architecture,
    acceleration: host.acceleration,
    memoryMib: wishes.memoryMib,
    hugepages: wishes.hugepages,
    cpus: wishes.cpus,
    tpm: wishes.tpm,
    boot: defineBoot(boot, { machine, wishes, host }),
    disks: machine.disks,
    ignitionPath: machine.ignitionPath,
    network: defineNetwork(wishes.network, machine.uuid),
    consoleLogPath: machine.consoleLogPath,
    runtimeDirectory: machine.runtimeDirectory,
    keepOwnership: host.keepOwnership,
  });
}

function defineBoot(
  boot: PreparedBoot,
  { machine, wishes, host }: { machine: DomainMachine; wishes: DomainWishes; host: DomainHost },
): DomainBoot {
  const { mode, firmware, kernel, initramfs, uki, iso, cmdline } = boot;
  if (wishes.secureBoot && firmware !== "uefi") {
    throw new ShimError(
      "BOOT_MODE_IMPOSSIBLE",
      `Cannot define domain: Secure Boot with firmware "${firmware}", must be "uefi"`,
      { details: { modes: boot.modes, remedy: "ask for --firmware uefi, or do without --secure-boot" } },
    );
  }
  const uefi = () => defineUefi(machine, host.uefiFirmware);
  if (mode === "kernel" && firmware !== "bios" && kernel !== null) {
    const kernelFirmware = firmware === "none" ? { kind: firmware } : uefi();
    return { mode, firmware: kernelFirmware, kernelPath: kernel, initramfsPath: initramfs, cmdline };
  }
  if (mode === "uki" && firmware === "uefi" && uki !== null) {
    // It holds its initramfs and command line; giving it another would take the place of its own.
    return { mode: "kernel", firmware: uefi(), kernelPath: uki, initramfsPath: null, cmdline: "" };
  }
  if (mode === "disk" && firmware !== "none") {
    return { mode, firmware: firmware === "bios" ? { kind: firmware } : uefi() };
  }
  if (mode === "iso" && firmware !== "none" && iso !== null) {
    return { mode, firmware: firmware === "bios" ? { kind: firmware } : uefi(), isoPath: iso };
  }
  const isMissing = mode !== "disk" && boot[mode] === null;
  throw new ShimError(
    "BOOT_MODE_IMPOSSIBLE",
    `Cannot define domain: boot mode "${mode}" with firmware "${firmware}"${
      isMissing ? ` and no ${mode}` : ""
    }, ` +
      'expected a "kernel" with "none" or "uefi", a "uki" with "uefi", a "disk" or "iso" with "bios" or "uefi"',
    { details: { modes: boot.modes } },
  );
}

function defineUefi(machine: DomainMachine, choice: UefiFirmwareChoice): UefiFirmware {
  if (choice.firmware === null) {
    throw new ShimError(
      "HYPERVISOR_UNAVAILABLE",
      `Cannot define domain: the image boots by UEFI, the host has no firmware for it (${choice.reason})`,
      {
        details: {
          remedy: "Install UEFI firmware for QEMU (Debian: ovmf for amd64, qemu-efi-aarch64 for arm64)",
        },
      },
    );
  }
  if (machine.nvramPath === null) {
    throw new ShimError(
      "INTERNAL",
      `Cannot define domain "${machine.id}": UEFI without NVRAM, expected a path`,
    );
  }
  return {
    kind: "uefi",
    loaderPath: choice.firmware.loaderPath,
    loaderFormat: choice.firmware.loaderFormat,
    nvramPath: machine.nvramPath,
    nvramFormat: choice.firmware.nvramTemplateFormat,
    secureBoot: choice.firmware.secureBoot,
  };
}

function defineNetwork(network: DomainWishes["network"], uuid: string): DomainNetwork {
  if (network.kind === "none") return network;
  const macAddress = macAddressOf(uuid);
  if (network.kind === "user") return { ...network, macAddress };
  const tail = macAddress.slice(9).replaceAll(":", "");
  return { ...network, macAddress, tapName: network.kind === "bridge" ? `bootshim${tail}` : network.name };
}

/**
 * The same machine keeps its address, so that DHCP leases and udev names hold, and that defining it again changes nothing:
 * libvirt would draw another one each time. Hashed, because the tail of a uuid that
 * was not drawn at random is the same on all machines of a host. 52:54:00 is the prefix QEMU and libvirt use.
 */
function macAddressOf(uuid: string): string {
  const tail = createHash("sha256").update(uuid).digest("hex").slice(0, 6);
  return `52:54:00:${tail.slice(0, 2)}:${tail.slice(2, 4)}:${tail.slice(4)}`;
}
