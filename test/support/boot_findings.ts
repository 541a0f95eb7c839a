import type { BootWish, LayerFindings } from "../../src/boot/decide_boot.ts";
import type { DiskContent } from "../../src/boot/disk_content.ts";
import type { IsoImage } from "../../src/boot/iso_content.ts";
import type { Kernel, KernelContent } from "../../src/boot/kernel_content.ts";
import type { PartitionedDisk } from "../../src/boot/partition_table.ts";
import type { Role } from "../../src/boot/prepared_boot.ts";
import type { UnifiedKernel } from "../../src/boot/uki_content.ts";

export const AUTO: BootWish = { boot: "auto", firmware: "auto" };
export const wish = (boot: BootWish["boot"], firmware: BootWish["firmware"] = "auto"): BootWish => ({
  boot,
  firmware,
});

export const disk = (
  table: "gpt" | "mbr",
  hasEfiSystemPartition: boolean,
  hasBiosBootCode: boolean,
  problem: string | null = null,
): PartitionedDisk => ({
  kind: "partitioned",
  table,
  partitions: [],
  hasEfiSystemPartition,
  hasBiosBootCode,
  isHybrid: false,
  problem,
});
export const EFI_DISK = disk("gpt", true, false);
export const BIOS_DISK = disk("mbr", false, true);
export const EITHER_DISK = disk("gpt", true, true);
export const DEAD_DISK = disk("gpt", false, false);
export const BROKEN_GPT = disk("gpt", false, false, "the checksum of its GPT header is wrong");
export const EXT: DiskContent = { kind: "file-system", name: "ext4" };
export const UNSEEN: DiskContent = {
  kind: "unknown",
  why: "cannot be told from its first 64 KiB",
  isUnseen: true,
};

const KERNEL = { kind: "kernel", isEfiProgram: true, version: null, commandLineLimitBytes: null } as const;
export const BZIMAGE: Kernel = {
  ...KERNEL,
  format: "bzImage",
  architecture: "amd64",
  commandLineLimitBytes: 2047,
};
export const BZIMAGE_WITHOUT_EFI: KernelContent = { ...BZIMAGE, isEfiProgram: false };
export const ARM_IMAGE: KernelContent = { ...KERNEL, format: "arm64 Image", architecture: "arm64" };
export const EFI_KERNEL: KernelContent = { ...KERNEL, format: "EFI/PE", architecture: "amd64" };
export const ZBOOT: KernelContent = { ...KERNEL, format: "EFI zboot", architecture: "arm64" };
export const UKI_AS_KERNEL: KernelContent = { ...KERNEL, format: "UKI", architecture: "amd64" };
export const DUMMY: KernelContent = { kind: "not-a-kernel", why: "it begins with zeros only: a dummy" };

export const UKI: UnifiedKernel = {
  kind: "uki",
  architecture: "amd64",
  sections: [".linux"],
  cmdline: null,
  osrel: null,
  uname: null,
  isTextUnseen: false,
};
export const iso = (hasBiosBoot: boolean | undefined, hasUefiBoot: boolean | undefined): IsoImage => ({
  kind: "iso",
  volumeId: null,
  hasUdf: false,
  hasBiosBoot,
  hasUefiBoot,
  unseen: hasBiosBoot === undefined ? "cannot be told from its first 64 KiB" : null,
  hybrid: null,
});
export const BIOS_ISO = iso(true, false);
export const UEFI_ISO = iso(false, true);
export const EITHER_ISO = iso(true, true);

export const SQUASHFS: DiskContent = { kind: "file-system", name: "squashfs" };

/** Findings of an amd64 image. */
export function findings(known: Partial<LayerFindings> = {}): LayerFindings {
  return { architecture: "amd64", ...known };
}

/** The roles that findings say something about. */
export function rolesOf(found: LayerFindings): ReadonlySet<Role> {
  const roles = ["rootfs", "kernel", "initramfs", "squashfs", "uki", "iso"] as const;
  return new Set(roles.filter((role) => found[role] !== undefined));
}
