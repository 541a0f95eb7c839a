import type { BootWish, LayerFindings } from "../../src/boot/decide_boot.ts";
import type { DiskContent } from "../../src/boot/disk_content.ts";
import type { KernelContent } from "../../src/boot/kernel_content.ts";
import type { Role } from "../../src/boot/prepared_boot.ts";

export const AUTO: BootWish = { boot: "auto", firmware: "auto" };
export const wish = (boot: BootWish["boot"], firmware: BootWish["firmware"] = "auto"): BootWish => ({
  boot,
  firmware,
});

export const disk = (
  table: "gpt" | "mbr",
  hasEfiSystemPartition: boolean,
  hasBiosBootCode: boolean,
): DiskContent => ({
  kind: "partitioned",
  table,
  hasEfiSystemPartition,
  hasBiosBootCode,
});
export const EFI_DISK = disk("gpt", true, false);
export const BIOS_DISK = disk("mbr", false, true);
export const EITHER_DISK = disk("gpt", true, true);
export const DEAD_DISK = disk("gpt", false, false);
export const EXT: DiskContent = { kind: "file-system", name: "ext" };
export const BZIMAGE: KernelContent = { kind: "kernel", format: "bzImage", architecture: "amd64" };
export const ARM_IMAGE: KernelContent = { kind: "kernel", format: "arm64 Image", architecture: "arm64" };
export const DUMMY: KernelContent = { kind: "not-a-kernel", why: "it begins with zeros only: a dummy" };

/** Findings of an amd64 image; its roles are those it says something about, and the further ones. */
export function findings(known: Partial<LayerFindings> = {}, ...further: readonly Role[]): LayerFindings {
  const roles = (["rootfs", "kernel", "initramfs"] as const).filter((role) => known[role] !== undefined);
  return { architecture: "amd64", roles: new Set([...roles, ...further]), ...known };
}
