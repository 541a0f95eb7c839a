import type { DiskFormat } from "../boot/prepared_boot.ts";
import type { Architecture } from "../image/platform.ts";

/**
 * @module hypervisor: what a machine is, and its two renderings: libvirt's domain XML and a QEMU command.
 *
 * Pure: no I/O, no clock, no randomness; equal definitions give equal text. May import `image/` and `boot/`.
 * Invariants: every disk names its format and its whole backing chain; every path is absolute; no value reaches XML or
 * an argument without passing the one escaping place of its rendering.
 */

/** `kvm` only where it was seen to work; `tcg` emulates. libvirt's words for them are domain types `kvm` and `qemu`. */
export type Acceleration = "kvm" | "tcg";

export type FirmwareFormat = "raw" | "qcow2";

/** UEFI: the read-only code, and this machine's own variable store made from the template. */
export type UefiFirmware = {
  readonly kind: "uefi";
  readonly loaderPath: string;
  readonly loaderFormat: FirmwareFormat;
  readonly nvramPath: string;
  readonly nvramFormat: FirmwareFormat;
};

/**
 * `kernel`: the hypervisor loads it and jumps into it, or with UEFI hands it to the firmware as the EFI program it must
 * then be; a unified kernel image is such a program without initramfs and command line, as it brings its own.
 * `disk`: firmware starts the first disk. `iso`: firmware starts the CD, and the first disk when the CD declines.
 */
export type DomainBoot =
  | {
    readonly mode: "kernel";
    readonly firmware: { readonly kind: "none" } | UefiFirmware;
    readonly kernelPath: string;
    readonly initramfsPath: string | null;
    readonly cmdline: string;
  }
  | { readonly mode: "disk"; readonly firmware: { readonly kind: "bios" } | UefiFirmware }
  | {
    readonly mode: "iso";
    readonly firmware: { readonly kind: "bios" } | UefiFirmware;
    /** A raw image; the guest's only CD-ROM, which nobody writes. */
    readonly isoPath: string;
  };

/** A virtio disk. `backing` is the complete rest of the chain: null means the file stands alone. */
export type DomainDisk = {
  readonly path: string;
  readonly format: DiskFormat;
  readonly readOnly: boolean;
  readonly serial: string | null;
  readonly backing: { readonly path: string; readonly format: DiskFormat } | null;
};

/**
 * `user`: QEMU's own NAT, needs no right. `network`: a libvirt network by name; under plain QEMU a tap device of that
 * name that exists already, since QEMU may neither start its bridge helper nor a script in our sandbox.
 */
export type DomainNetwork =
  | { readonly kind: "none" }
  | { readonly kind: "user" }
  | { readonly kind: "network"; readonly name: string; readonly macAddress: string };

/** A whole machine. Rendered by `domain_xml/` and `qemu_command/`. */
export type DomainDefinition = {
  /** Machine id: `[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?`. */
  readonly name: string;
  /** Lower-case RFC 9562 text form. */
  readonly uuid: string;
  readonly architecture: Architecture;
  readonly acceleration: Acceleration;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly boot: DomainBoot;
  /** In guest order: vda, vdb, … */
  readonly disks: readonly DomainDisk[];
  readonly network: DomainNetwork;
  /** Absolute path of the file that keeps the serial console's output (the domain XML's log; QEMU on stdio has none). */
  readonly consoleLogPath: string;
  /**
   * Whether libvirt is to leave the owner of every file alone. True for root's libvirt (`qemu:///system`), which
   * otherwise gives a shared base image to QEMU's user and never takes it back; false for `qemu:///session`, which has
   * no "dac" security driver and refuses a label of it.
   */
  readonly keepOwnership: boolean;
};
