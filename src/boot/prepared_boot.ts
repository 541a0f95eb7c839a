import type { Descriptor } from "../image/descriptor.ts";
import type { Architecture, Variant } from "../image/platform.ts";

/** What a layer is for. */
export type Role = "rootfs" | "kernel" | "initramfs" | "squashfs" | "cmdline" | "uki" | "iso";

export type BootMode = "disk" | "kernel" | "uki" | "iso";
/** `none`: the hypervisor loads the kernel itself. */
export type Firmware = "none" | "bios" | "uefi";

/** Whether an image can boot in a mode, and the reason in either case. */
export type ModeVerdict = { readonly mode: BootMode; readonly possible: boolean; readonly why: string };

/** A layer of the chosen manifest, by its role. */
export type RoleLayer = { readonly role: Role; readonly descriptor: Descriptor };

/** A layer whose verified bytes lie at an absolute path. */
export type LocalLayer = RoleLayer & { readonly path: string };

export type DiskFormat = "raw" | "qcow2";

/** A disk the guest is to see, as the image holds it: the file is shared and never written. */
export type BootDisk = {
  readonly role: "rootfs" | "squashfs";
  readonly path: string;
  readonly format: DiskFormat;
  readonly virtualSizeBytes: number;
  readonly readOnly: boolean;
  /** What the guest finds in /sys/block/vdX/serial; null for none. */
  readonly serial: string | null;
};

/** The verified, decided boot: everything a hypervisor has to know of the image, and nothing of the hypervisor. */
export type PreparedBoot = {
  readonly architecture: Architecture;
  readonly variant: Variant;
  readonly mode: BootMode;
  readonly firmware: Firmware;
  /** Absolute paths, or null where the mode has no such part. */
  readonly kernel: string | null;
  readonly initramfs: string | null;
  readonly uki: string | null;
  readonly iso: string | null;
  /** The kernel's command line; in the other modes what the image states, for whoever wants to know. */
  readonly cmdline: string;
  readonly reason: string;
  readonly modes: readonly ModeVerdict[];
  /** In the order in which the guest sees them: the first is vda. */
  readonly disks: readonly BootDisk[];
};
