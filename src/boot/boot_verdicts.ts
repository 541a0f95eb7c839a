import type { Architecture } from "../image/platform.ts";
import type { DiskContent } from "./disk_content.ts";
import type { FormatFault } from "./format_fault.ts";
import type { InitramfsContent } from "./initramfs_content.ts";
import type { IsoContent, IsoImage } from "./iso_content.ts";
import { type Kernel, type KernelContent, MAX_KERNEL_BYTES, tooLargeForKernel } from "./kernel_content.ts";
import type { PartitionedDisk } from "./partition_table.ts";
import type { BootMode, Firmware, Role } from "./prepared_boot.ts";
import { MAX_UKI_BYTES, tooLargeForUki, type UkiContent } from "./uki_content.ts";

/** What the layers of one image really hold; undefined where the image has no such layer. */
export type LayerFindings = {
  readonly architecture: Architecture;
  /** Of a qcow2 file, what is inside. */
  readonly rootfs?: DiskContent | UnusableDisk | undefined;
  readonly squashfs?: DiskContent | undefined;
  readonly kernel?: KernelContent | undefined;
  /** Of a kernel layer that is a unified kernel image, what is in it. */
  readonly kernelUki?: UkiContent | undefined;
  readonly initramfs?: InitramfsContent | undefined;
  readonly uki?: UkiContent | undefined;
  readonly iso?: IsoContent | undefined;
};

/** A disk that the gate refuses, and what it says of it. */
export type UnusableDisk = { readonly kind: "unusable"; readonly why: string };

export type FirmwareWish = "auto" | "bios" | "uefi";

/**
 * Whether a mode is possible, by which firmware, and why (not). Null where that lies in bytes which were not seen: never so
 * for whole files.
 */
export type Verdict =
  | { readonly possible: true; readonly why: string; readonly firmware: Firmware }
  | Obstacle
  | { readonly possible: null; readonly why: string };

/** Why a mode is impossible. */
export type Obstacle = {
  readonly possible: false;
  readonly why: string;
  /** When it is that the mode's own layer is not what it is published as, what is wrong with it. */
  readonly fault?: FormatFault | undefined;
};

function no(why: string, fault?: FormatFault): Obstacle {
  return { possible: false, why, fault };
}

function unknown(why: string): Verdict {
  return { possible: null, why };
}

function by(firmware: Firmware, why: string): Verdict {
  return { possible: true, why, firmware };
}

/** The verdict for each mode, from what the layers hold. */
export const VERDICTS: Readonly<Record<BootMode, (findings: LayerFindings, wish: FirmwareWish) => Verdict>> =
  {
    disk: diskVerdict,
    kernel: kernelVerdict,
    uki: ukiVerdict,
    iso: isoVerdict,
  };

/** What a manifest tells of an image's layers. */
export type LayerSizes = ReadonlyMap<Role, number>;

/** Why a mode is impossible, as far as the manifest alone tells; undefined when only the bytes can. */
export function obstacleInManifest(
  sizes: LayerSizes,
  { mode, firmware }: { mode: BootMode; firmware: FirmwareWish },
): Obstacle | undefined {
  const role = mode === "disk" ? "rootfs" : mode;
  const sizeBytes = sizes.get(role);
  if (sizeBytes === undefined) return no(`the image has no ${role} layer`);
  if (mode === "kernel") {
    if (firmware === "bios") return no(BIOS_FOR_KERNEL);
    if (sizeBytes >= MAX_KERNEL_BYTES) return notAKernel(tooLargeForKernel(sizeBytes), "LIMIT_EXCEEDED");
  }
  if (mode === "uki") {
    if (firmware === "bios") return no(BIOS_FOR_UKI);
    if (sizeBytes > MAX_UKI_BYTES) return notAUki(tooLargeForUki(sizeBytes), "LIMIT_EXCEEDED");
  }
  return undefined;
}

function notAKernel(why: string, fault: FormatFault | undefined): Obstacle {
  return no(`the kernel layer is no kernel: ${why}`, fault);
}

function notAUki(why: string, fault: FormatFault): Obstacle {
  return no(`the uki layer is no unified kernel image: ${why}`, fault);
}

const BIOS_FOR_KERNEL = 'firmware "bios" was asked for, direct kernel boot has none';
const BIOS_FOR_UKI = 'firmware "bios" was asked for, a unified kernel image needs uefi';

function diskVerdict({ architecture, rootfs }: LayerFindings, wish: FirmwareWish): Verdict {
  if (!rootfs) return no("the image has no rootfs layer");
  if (rootfs.kind === "unusable") return no(`the rootfs is refused: ${rootfs.why}`);
  if (rootfs.kind === "unknown" && rootfs.isUnseen) return unknown(`the rootfs ${rootfs.why}`);
  if (rootfs.kind !== "partitioned") return no(`the rootfs ${withoutPartitions(rootfs)}`);
  const { hasEfiSystemPartition, hasBiosBootCode, problem } = rootfs;
  const disk = `the rootfs is ${nameOfTable(rootfs)} disk`;
  const whyNoUefi = problem === null ? undefined : `${disk}, but ${problem}`;
  if (wish === "uefi" && !hasEfiSystemPartition) {
    return no(whyNoUefi ?? `${disk} without the EFI system partition that uefi needs`);
  }
  if (wish === "bios" && architecture !== "amd64") return no(`${architecture} machines have no bios`);
  if (wish === "bios" && !hasBiosBootCode) return no(`${disk} without the boot code that bios needs`);
  if (hasEfiSystemPartition && wish !== "bios") return by("uefi", `${disk} with an EFI system partition`);
  if (architecture !== "amd64") {
    return no(whyNoUefi ?? `${disk} without the EFI system partition that ${architecture} machines need`);
  }
  if (hasBiosBootCode) return by("bios", `${disk} with BIOS boot code`);
  return no(whyNoUefi ?? `${disk} with neither an EFI system partition nor BIOS boot code`);
}

function withoutPartitions(disk: Exclude<DiskContent, PartitionedDisk>): string {
  if (disk.kind === "unknown") return disk.why;
  if (disk.kind === "container") return `is a ${disk.name} file`;
  const bare = disk.kind === "file-system" ? `${disk.name} file system` : disk.name;
  return `is a bare ${bare} without boot loader`;
}

/** What the formats that only firmware can start are called. */
const EFI_ONLY: Partial<Record<Kernel["format"], string>> = {
  "EFI zboot": "a kernel packed for EFI (zboot)",
  "EFI/PE": "a plain EFI program",
  UKI: "a unified kernel image",
};

function kernelVerdict(findings: LayerFindings, wish: FirmwareWish): Verdict {
  const { architecture, kernel, kernelUki } = findings;
  if (!kernel) return no("the image has no kernel layer");
  if (wish === "bios") return no(BIOS_FOR_KERNEL);
  if (kernel.kind === "unknown") return unknown(`whether the kernel layer is a kernel ${kernel.why}`);
  if (kernel.kind === "not-a-kernel") return notAKernel(kernel.why, kernel.fault);
  if (kernel.architecture !== architecture) {
    return no(
      `the kernel is for ${kernel.architecture}, the manifest for ${architecture}`,
      "FORMAT_MISMATCH",
    );
  }
  if (kernelUki?.kind === "not-a-uki") {
    return no(`the kernel layer is a unified kernel image, but ${kernelUki.why}`, kernelUki.fault);
  }
  if (wish === "uefi" && !kernel.isEfiProgram) {
    return no(`the kernel is a ${kernel.format} without the EFI stub that uefi needs`);
  }
  const efiOnly = EFI_ONLY[kernel.format];
  const why = `the kernel is ${efiOnly ?? `a valid ${kernel.format}`}${companion(findings)}`;
  const squashfs = withoutSquashfs(findings);
  return efiOnly !== undefined || wish === "uefi"
    ? by("uefi", `${why}, under uefi${squashfs}`)
    : by("none", `${why}${squashfs}`);
}

/** What is said of the initramfs. */
function companion({ kernel, initramfs }: LayerFindings): string {
  if (kernel?.kind === "kernel" && kernel.format === "UKI") return "";
  if (initramfs === undefined) return " and no initramfs";
  if (initramfs.isInitramfs) return " with initramfs";
  const why = initramfs.why === undefined ? "" : ` (${initramfs.why})`;
  return ` and an initramfs layer that is none${why}, which is left out`;
}

/** What is said of a squashfs layer that the guest is not given. */
function withoutSquashfs({ squashfs }: LayerFindings): string {
  const fault = squashfs && squashfsFault(squashfs);
  return fault === undefined ? "" : `, and a squashfs layer that is none (${fault}), which is left out`;
}

/** File systems that a squashfs layer may hold: both are read-only by nature, and told by their first bytes. */
const READ_ONLY_FILE_SYSTEMS: readonly string[] = ["squashfs", "erofs"];

/** Why a squashfs layer is no disk for the guest; undefined for one that is, or that was not seen. */
export function squashfsFault(content: DiskContent): string | undefined {
  switch (content.kind) {
    case "partitioned":
      return `it is ${nameOfTable(content)} disk`;
    case "container":
      return `it is a ${[`${content.name} file`, ...content.also].join(" and at once ")}`;
    case "file-system":
    case "volume":
      return READ_ONLY_FILE_SYSTEMS.includes(content.name) ? undefined : `it holds ${content.name}`;
    case "unknown":
      if (content.isUnseen) return undefined;
      return content.why.startsWith("begins") ? `it ${content.why}` : "it is no file system";
  }
}

function nameOfTable({ table }: PartitionedDisk): string {
  return table === "gpt" ? "a GPT" : "an MBR";
}

function ukiVerdict(findings: LayerFindings, wish: FirmwareWish): Verdict {
  const { architecture, uki } = findings;
  if (!uki) return no("the image has no uki layer");
  if (wish === "bios") return no(BIOS_FOR_UKI);
  if (uki.kind === "unknown") return unknown(`whether the uki layer is a unified kernel image ${uki.why}`);
  if (uki.kind === "not-a-uki") return notAUki(uki.why, uki.fault);
  if (uki.architecture !== architecture) {
    return no(
      `the unified kernel image is for ${uki.architecture}, the manifest for ${architecture}`,
      "FORMAT_MISMATCH",
    );
  }
  return by("uefi", `the uki layer is a valid unified kernel image${withoutSquashfs(findings)}`);
}

function isoVerdict({ architecture, iso }: LayerFindings, wish: FirmwareWish): Verdict {
  if (!iso) return no("the image has no iso layer");
  if (iso.kind === "unknown") return unknown(`whether the iso layer is an ISO image ${iso.why}`);
  if (iso.kind === "not-an-iso") return no(`the iso layer is no ISO image: ${iso.why}`, iso.fault);
  if (wish === "bios" && architecture !== "amd64") return no(`${architecture} machines have no bios`);
  if (iso.unseen !== null) return unknown(`whether the ISO image boots ${iso.unseen}`);
  if (iso.hasUefiBoot && wish !== "bios") return by("uefi", "the ISO image boots by uefi");
  if (iso.hasBiosBoot && wish !== "uefi" && architecture === "amd64") {
    return by("bios", "the ISO image boots by bios");
  }
  return no(`the ISO image boots by ${bootsBy(iso)}, ${neededBy(architecture, wish)}`);
}

function bootsBy({ hasBiosBoot, hasUefiBoot }: IsoImage): string {
  return hasUefiBoot ? "uefi only" : hasBiosBoot ? "bios only" : "nothing";
}

function neededBy(architecture: Architecture, wish: FirmwareWish): string {
  if (wish !== "auto") return `firmware "${wish}" was asked for`;
  return `${architecture} machines need ${architecture === "amd64" ? "uefi or bios" : "uefi"}`;
}
