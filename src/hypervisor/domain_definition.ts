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
  /** The loader checks signatures, and only code in System Management Mode writes its variables: amd64 alone. */
  readonly secureBoot: boolean;
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
 * `user`: QEMU's own NAT, needs no right. `network`: a libvirt network by name; `bridge`: a bridge of the host. Under
 * plain QEMU both are a tap device that exists already, `tapName`, since QEMU may neither start its bridge helper nor a
 * script in our sandbox.
 */
export type DomainNetwork =
  | { readonly kind: "none" }
  | { readonly kind: "user"; readonly macAddress: string }
  | {
    readonly kind: "network" | "bridge";
    readonly name: string;
    readonly macAddress: string;
    readonly tapName: string;
  };

/** A whole machine. Rendered by `domain_xml/` and `qemu_command/`. */
export type DomainDefinition = {
  /** Machine id: `[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?`. */
  readonly name: string;
  /** Lower-case RFC 9562 text form. */
  readonly uuid: string;
  readonly architecture: Architecture;
  readonly acceleration: Acceleration;
  readonly memoryMib: number;
  /** Memory from the host's pool of huge pages, which must hold all of it. */
  readonly hugepages: boolean;
  readonly cpus: number;
  /** A TPM 2.0 of swtpm. libvirt starts one; plain QEMU wants it to listen on `tpm.sock` in the runtime directory. */
  readonly tpm: boolean;
  readonly boot: DomainBoot;
  /** In guest order: vda, vdb, … */
  readonly disks: readonly DomainDisk[];
  /** An Ignition configuration, which the guest finds in fw_cfg as `opt/com.coreos/config`. */
  readonly ignitionPath: string | null;
  readonly network: DomainNetwork;
  /** Absolute path of the file that keeps the serial console's output (the domain XML's log; QEMU on stdio has none). */
  readonly consoleLogPath: string;
  /**
   * Where QEMU, started without libvirt, listens: `qmp.sock`, `agent.sock`. A directory that others cannot enter; null
   * for none of them.
   */
  readonly runtimeDirectory: string | null;
  /**
   * Whether libvirt is to leave the owner of every file alone. True for root's libvirt (`qemu:///system`), which
   * otherwise gives a shared base image to QEMU's user and never takes it back; false for `qemu:///session`, which has
   * no "dac" security driver and refuses a label of it.
   */
  readonly keepOwnership: boolean;
};
