import { describe, expect, it } from "vitest";
import { type BootWish, type LayerFindings, modeVerdicts } from "../../../src/boot/decide_boot.ts";
import type { DiskContent } from "../../../src/boot/disk_content.ts";
import type { BootMode } from "../../../src/boot/prepared_boot.ts";
import {
  ARM_IMAGE,
  AUTO,
  BIOS_DISK,
  BZIMAGE,
  DEAD_DISK,
  disk,
  DUMMY,
  EFI_DISK,
  EITHER_DISK,
  EXT,
  findings,
  wish,
} from "../../support/boot_findings.ts";

function verdictOf(
  mode: BootMode,
  found: LayerFindings,
  wished: BootWish = AUTO,
): readonly [boolean, string] {
  const verdict = modeVerdicts(found, wished).find((each) => each.mode === mode);
  if (!verdict) throw new Error(`There is no verdict about ${mode}`);
  return [verdict.possible, verdict.why];
}

describe("modeVerdicts", () => {
  it("has one for every mode, in the order in which auto prefers them", () => {
    expect(modeVerdicts(findings(), AUTO)).toEqual([
      { mode: "disk", possible: false, why: "the image has no rootfs layer" },
      { mode: "kernel", possible: false, why: "the image has no kernel layer" },
      { mode: "uki", possible: false, why: "the image has no uki layer" },
      { mode: "iso", possible: false, why: "the image has no iso layer" },
    ]);
  });

  it.each<[string, DiskContent, BootWish["firmware"], boolean, string]>([
    ["an EFI disk", EFI_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    [
      "an EFI disk under uefi",
      EFI_DISK,
      "uefi",
      true,
      "the rootfs is a GPT disk with an EFI system partition",
    ],
    [
      "an EFI disk under bios",
      EFI_DISK,
      "bios",
      false,
      "the rootfs is a GPT disk without the boot code that bios needs",
    ],
    [
      "an EFI disk with an MBR",
      disk("mbr", true, false),
      "auto",
      true,
      "the rootfs is an MBR disk with an EFI system partition",
    ],
    ["a BIOS disk", BIOS_DISK, "auto", true, "the rootfs is an MBR disk with BIOS boot code"],
    ["a BIOS disk under bios", BIOS_DISK, "bios", true, "the rootfs is an MBR disk with BIOS boot code"],
    [
      "a BIOS disk under uefi",
      BIOS_DISK,
      "uefi",
      false,
      "the rootfs is an MBR disk without the EFI system partition that uefi needs",
    ],
    ["a disk for both", EITHER_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    ["a disk for both under bios", EITHER_DISK, "bios", true, "the rootfs is a GPT disk with BIOS boot code"],
    [
      "a disk for both under uefi",
      EITHER_DISK,
      "uefi",
      true,
      "the rootfs is a GPT disk with an EFI system partition",
    ],
    [
      "a disk for neither",
      DEAD_DISK,
      "auto",
      false,
      "the rootfs is a GPT disk with neither an EFI system partition nor BIOS boot code",
    ],
    ["a bare file system", EXT, "auto", false, "the rootfs is a bare ext file system without boot loader"],
    ["something unknown", { kind: "unknown" }, "auto", false, "the rootfs has no partition table"],
    ["a container", { kind: "container", name: "qcow2" }, "auto", false, "the rootfs has no partition table"],
  ])("disk: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ rootfs }), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, DiskContent, BootWish["firmware"], boolean, string]>([
    ["an EFI disk", EFI_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    [
      "a BIOS disk",
      BIOS_DISK,
      "auto",
      false,
      "the rootfs is an MBR disk without the EFI system partition that arm64 machines need",
    ],
    ["a disk for both under bios", EITHER_DISK, "bios", false, "arm64 machines have no bios"],
  ])("disk on arm64: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ architecture: "arm64", rootfs }), wish("auto", firmware))).toEqual([
      possible,
      why,
    ]);
  });

  it.each<[string, Partial<LayerFindings>, boolean, string]>([
    [
      "bzImage with initramfs",
      { kernel: BZIMAGE, initramfs: { isInitramfs: true } },
      true,
      "the kernel is a valid bzImage with initramfs",
    ],
    ["bzImage alone", { kernel: BZIMAGE }, true, "the kernel is a valid bzImage and no initramfs"],
    [
      "bzImage with a dummy initramfs",
      { kernel: BZIMAGE, initramfs: { isInitramfs: false } },
      true,
      "the kernel is a valid bzImage and an initramfs layer that is none, which is left out",
    ],
    [
      "arm64 Image",
      { architecture: "arm64", kernel: ARM_IMAGE },
      true,
      "the kernel is a valid arm64 Image and no initramfs",
    ],
    [
      "HD17 a kernel of the other architecture",
      { kernel: ARM_IMAGE },
      false,
      "the kernel is for arm64, the manifest for amd64",
    ],
    [
      "a dummy",
      { kernel: DUMMY },
      false,
      "the kernel layer is no kernel: it begins with zeros only: a dummy",
    ],
    [
      "a plain EFI program",
      { kernel: { kind: "kernel", format: "EFI/PE", architecture: "amd64" } },
      false,
      "the kernel is a plain EFI program, which direct kernel boot cannot start",
    ],
    [
      "an initramfs without kernel",
      { initramfs: { isInitramfs: true } },
      false,
      "the image has no kernel layer",
    ],
  ])("kernel: %s", (_name, known, possible, why) => {
    expect(verdictOf("kernel", findings(known))).toEqual([possible, why]);
  });

  it.each(["bios", "uefi"] as const)("kernel: not under %s", (firmware) => {
    expect(verdictOf("kernel", findings({ kernel: BZIMAGE }), wish("auto", firmware))).toEqual([
      false,
      `firmware "${firmware}" was asked for, direct kernel boot has none`,
    ]);
  });

  it.each(["uki", "iso"] as const)("%s: not in this version", (role) => {
    expect(verdictOf(role, findings({}, role))).toEqual([false, `this version does not boot ${role} layers`]);
  });
});
