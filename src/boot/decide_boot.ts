import { ShimError } from "../errors.ts";
import type { Architecture } from "../image/platform.ts";
import type { DiskContent } from "./disk_content.ts";
import type { KernelContent } from "./kernel_content.ts";
import type { BootMode, Firmware, ModeVerdict, Role } from "./prepared_boot.ts";

/** What the layers of one image really hold; undefined where the image has no such layer. */
export type LayerFindings = {
  readonly architecture: Architecture;
  /** Every role the manifest gives. */
  readonly roles: ReadonlySet<Role>;
  readonly rootfs?: DiskContent | undefined;
  readonly kernel?: KernelContent | undefined;
  readonly initramfs?: { readonly isInitramfs: boolean } | undefined;
};

export type BootWish = { readonly boot: BootMode | "auto"; readonly firmware: "auto" | "bios" | "uefi" };

export type BootDecision = {
  readonly mode: BootMode;
  readonly firmware: Firmware;
  readonly reason: string;
  readonly modes: readonly ModeVerdict[];
  /** The layers that become disks, in guest order. */
  readonly diskRoles: readonly ("rootfs" | "squashfs")[];
  readonly usesInitramfs: boolean;
};

/** In the order in which `auto` prefers them. */
const MODES: readonly BootMode[] = ["disk", "kernel", "uki", "iso"];

/**
 * Decides how an image boots, from what its layers hold, and says why.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE when the wished mode, or with `auto` every mode, is impossible;
 *   `details.modes` has a verdict for each
 */
export function decideBoot(findings: LayerFindings, wish: BootWish): BootDecision {
  const modes = modeVerdicts(findings, wish);
  const mode = wish.boot === "auto" ? modes.find((verdict) => verdict.possible)?.mode : wish.boot;
  const verdict = modes.find((candidate) => candidate.mode === mode);
  if (mode === undefined || !verdict?.possible) throw impossible(modes, wish);
  const firmware = firmwareOf(mode, findings, wish);
  return {
    mode,
    firmware,
    reason: `${wish.boot === "auto" ? "chosen" : "asked for"}: ${verdict.why}`,
    modes,
    diskRoles: mode === "disk" ? ["rootfs"] : kernelModeDisks(findings),
    usesInitramfs: mode === "kernel" && findings.initramfs?.isInitramfs === true,
  };
}

/**
 * Refuses a wish that the manifest alone shows to be impossible, before anything large is transferred.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE
 */
export function requireLayersFor(roles: ReadonlySet<Role>, wish: BootWish): void {
  const modes = MODES.map((mode) => ({ mode, ...roleVerdict(roles, mode, wish) }));
  if (!modes.some(({ mode, possible }) => possible && (wish.boot === "auto" || wish.boot === mode))) {
    throw impossible(modes, wish);
  }
}

function impossible(modes: readonly ModeVerdict[], wish: BootWish): ShimError {
  const tried = wish.boot === "auto" ? "in any mode" : `in mode "${wish.boot}"`;
  const why = wish.boot === "auto"
    ? modes.map((each) => `${each.mode}: ${each.why}`)
    : modes.filter((each) => each.mode === wish.boot).map((each) => each.why);
  return new ShimError("BOOT_MODE_IMPOSSIBLE", `Cannot boot the image ${tried}: ${why.join("; ")}`, {
    details: { modes },
  });
}

/** As far as the manifest alone tells. */
function roleVerdict(
  roles: ReadonlySet<Role>,
  mode: BootMode,
  wish: BootWish,
): { possible: boolean; why: string } {
  if (mode === "uki" || mode === "iso") return laterVerdict(roles, mode);
  if (mode === "kernel" && wish.firmware !== "auto") return no(firmwareAsked(wish));
  const role = mode === "disk" ? "rootfs" : "kernel";
  return roles.has(role) ? yes(`the image has a ${role} layer`) : no(`the image has no ${role} layer`);
}

function firmwareAsked(wish: BootWish): string {
  return `firmware "${wish.firmware}" was asked for, direct kernel boot has none`;
}

/** For each mode whether the image can boot in it, and why (not). */
export function modeVerdicts(findings: LayerFindings, wish: BootWish): readonly ModeVerdict[] {
  const why: Record<BootMode, { possible: boolean; why: string }> = {
    disk: diskVerdict(findings, wish),
    kernel: kernelVerdict(findings, wish),
    uki: laterVerdict(findings.roles, "uki"),
    iso: laterVerdict(findings.roles, "iso"),
  };
  return MODES.map((mode) => ({ mode, ...why[mode] }));
}

function no(why: string): { possible: boolean; why: string } {
  return { possible: false, why };
}

function yes(why: string): { possible: boolean; why: string } {
  return { possible: true, why };
}

function diskVerdict(
  { architecture, rootfs }: LayerFindings,
  wish: BootWish,
): { possible: boolean; why: string } {
  if (!rootfs) return no("the image has no rootfs layer");
  if (rootfs.kind === "file-system") {
    return no(`the rootfs is a bare ${rootfs.name} file system without boot loader`);
  }
  if (rootfs.kind !== "partitioned") return no("the rootfs has no partition table");
  const { table, hasEfiSystemPartition, hasBiosBootCode } = rootfs;
  const disk = `the rootfs is ${table === "gpt" ? "a GPT" : "an MBR"} disk`;
  if (wish.firmware === "uefi" && !hasEfiSystemPartition) {
    return no(`${disk} without the EFI system partition that uefi needs`);
  }
  if (wish.firmware === "bios" && architecture !== "amd64") {
    return no(`${architecture} machines have no bios`);
  }
  if (wish.firmware === "bios" && !hasBiosBootCode) {
    return no(`${disk} without the boot code that bios needs`);
  }
  if (hasEfiSystemPartition && wish.firmware !== "bios") return yes(`${disk} with an EFI system partition`);
  if (architecture !== "amd64") {
    return no(`${disk} without the EFI system partition that ${architecture} machines need`);
  }
  if (hasBiosBootCode) return yes(`${disk} with BIOS boot code`);
  return no(`${disk} with neither an EFI system partition nor BIOS boot code`);
}

function kernelVerdict(
  { architecture, kernel, initramfs }: LayerFindings,
  wish: BootWish,
): { possible: boolean; why: string } {
  if (wish.firmware !== "auto") return no(firmwareAsked(wish));
  if (!kernel) return no("the image has no kernel layer");
  if (kernel.kind === "not-a-kernel") return no(`the kernel layer is no kernel: ${kernel.why}`);
  if (kernel.architecture !== architecture) {
    return no(`the kernel is for ${kernel.architecture}, the manifest for ${architecture}`);
  }
  // A hypervisor without firmware has nobody who could start an EFI program.
  if (kernel.format === "EFI/PE") {
    return no("the kernel is a plain EFI program, which direct kernel boot cannot start");
  }
  const companion = initramfs === undefined
    ? "and no initramfs"
    : initramfs.isInitramfs
    ? "with initramfs"
    : "and an initramfs layer that is none, which is left out";
  return yes(`the kernel is a valid ${kernel.format} ${companion}`);
}

function laterVerdict(roles: ReadonlySet<Role>, role: "uki" | "iso"): { possible: boolean; why: string } {
  return roles.has(role)
    ? no(`this version does not boot ${role} layers`)
    : no(`the image has no ${role} layer`);
}

function firmwareOf(mode: BootMode, { rootfs }: LayerFindings, wish: BootWish): Firmware {
  if (mode === "kernel") return "none";
  if (wish.firmware !== "auto") return wish.firmware;
  return rootfs?.kind === "partitioned" && rootfs.hasEfiSystemPartition ? "uefi" : "bios";
}

/** Beside a kernel, a partitioned rootfs is another system's disk: only a bare file system belongs to the kernel. */
function kernelModeDisks({ rootfs, roles }: LayerFindings): ("rootfs" | "squashfs")[] {
  const disks: ("rootfs" | "squashfs")[] = [];
  if (rootfs?.kind === "file-system") disks.push("rootfs");
  if (roles.has("squashfs")) disks.push("squashfs");
  return disks;
}
