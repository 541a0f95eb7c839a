import { describe, expect, it } from "vitest";
import { type BootWish, type LayerFindings, modeVerdicts } from "../../../src/boot/decide_boot.ts";
import type { UnusableDisk } from "../../../src/boot/boot_verdicts.ts";
import type { DiskContent } from "../../../src/boot/disk_content.ts";
import type { KernelContent } from "../../../src/boot/kernel_content.ts";
import type { BootMode } from "../../../src/boot/prepared_boot.ts";
import {
  ARM_IMAGE,
  AUTO,
  BIOS_DISK,
  BIOS_ISO,
  BROKEN_GPT,
  BZIMAGE,
  BZIMAGE_WITHOUT_EFI,
  DEAD_DISK,
  disk,
  DUMMY,
  EFI_DISK,
  EFI_KERNEL,
  EITHER_DISK,
  EITHER_ISO,
  EXT,
  findings,
  iso,
  UEFI_ISO,
  UKI,
  UKI_AS_KERNEL,
  UNSEEN,
  wish,
  ZBOOT,
} from "../../support/boot_findings.ts";

function verdictOf(
  mode: BootMode,
  found: LayerFindings,
  wished: BootWish = AUTO,
): readonly [boolean | null, string] {
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

  it.each<[string, DiskContent | UnusableDisk, BootWish["firmware"], boolean | null, string]>([
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
    ["a bare file system", EXT, "auto", false, "the rootfs is a bare ext4 file system without boot loader"],
    [
      "a bare volume",
      { kind: "volume", name: "swap area" },
      "auto",
      false,
      "the rootfs is a bare swap area without boot loader",
    ],
    [
      "something unknown",
      { kind: "unknown", why: "has no partition table", isUnseen: false },
      "auto",
      false,
      "the rootfs has no partition table",
    ],
    ["something unseen", UNSEEN, "auto", null, "the rootfs cannot be told from its first 64 KiB"],
    [
      "one that the gate refuses",
      { kind: "unusable", why: "Cannot use the rootfs layer as a disk: it is a vmdk file" },
      "auto",
      false,
      "the rootfs is refused: Cannot use the rootfs layer as a disk: it is a vmdk file",
    ],
    [
      "a container",
      { kind: "container", name: "qcow2", also: [] },
      "auto",
      false,
      "the rootfs is a qcow2 file",
    ],
    [
      "a broken GPT",
      BROKEN_GPT,
      "auto",
      false,
      "the rootfs is a GPT disk, but the checksum of its GPT header is wrong",
    ],
    [
      "a broken GPT under uefi",
      BROKEN_GPT,
      "uefi",
      false,
      "the rootfs is a GPT disk, but the checksum of its GPT header is wrong",
    ],
    [
      "a broken GPT behind boot code",
      disk("gpt", false, true, "the checksum of its GPT header is wrong"),
      "auto",
      true,
      "the rootfs is a GPT disk with BIOS boot code",
    ],
  ])("disk: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ rootfs }), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, DiskContent | UnusableDisk, BootWish["firmware"], boolean | null, string]>([
    ["an EFI disk", EFI_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    [
      "a BIOS disk",
      BIOS_DISK,
      "auto",
      false,
      "the rootfs is an MBR disk without the EFI system partition that arm64 machines need",
    ],
    ["a disk for both under bios", EITHER_DISK, "bios", false, "arm64 machines have no bios"],
    [
      "a broken GPT",
      BROKEN_GPT,
      "auto",
      false,
      "the rootfs is a GPT disk, but the checksum of its GPT header is wrong",
    ],
  ])("disk on arm64: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ architecture: "arm64", rootfs }), wish("auto", firmware))).toEqual([
      possible,
      why,
    ]);
  });

  it.each<[string, Partial<LayerFindings>, boolean | null, string]>([
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
      "HD19 a unified kernel image that is a broken one",
      {
        kernel: UKI_AS_KERNEL,
        kernelUki: { kind: "not-a-uki", why: "it has two sections .cmdline", fault: "FORMAT_UNSAFE" },
      },
      false,
      "the kernel layer is a unified kernel image, but it has two sections .cmdline",
    ],
    [
      "a dummy",
      { kernel: DUMMY },
      false,
      "the kernel layer is no kernel: it begins with zeros only: a dummy",
    ],
    [
      "a dummy initramfs, with the reason",
      { kernel: BZIMAGE, initramfs: { isInitramfs: false, why: "the file is empty" } },
      true,
      "the kernel is a valid bzImage and an initramfs layer that is none (the file is empty), which is left out",
    ],
    [
      "a plain EFI program",
      { kernel: EFI_KERNEL },
      true,
      "the kernel is a plain EFI program and no initramfs, under uefi",
    ],
    [
      "a kernel packed for EFI",
      { architecture: "arm64", kernel: ZBOOT, initramfs: { isInitramfs: true } },
      true,
      "the kernel is a kernel packed for EFI (zboot) with initramfs, under uefi",
    ],
    [
      "a unified kernel image",
      { kernel: UKI_AS_KERNEL, initramfs: { isInitramfs: true } },
      true,
      "the kernel is a unified kernel image, under uefi",
    ],
    [
      "a kernel that was not seen",
      { kernel: { kind: "unknown", why: "cannot be told without its bytes" } },
      null,
      "whether the kernel layer is a kernel cannot be told without its bytes",
    ],
    ...([
      ["a squashfs", { kind: "file-system", name: "squashfs" }, undefined],
      ["an erofs", { kind: "file-system", name: "erofs" }, undefined],
      ["one that was not seen", UNSEEN, undefined],
      ["another file system", EXT, "it holds ext4"],
      ["a disk", EFI_DISK, "it is a GPT disk"],
      ["a qcow2 file", { kind: "container", name: "qcow2", also: [] }, "it is a qcow2 file"],
      [
        "a squashfs that is a vhd, too",
        { kind: "container", name: "vhd", also: ["squashfs"] },
        "it is a vhd file and at once squashfs",
      ],
      [
        "zeros",
        { kind: "unknown", why: "begins with zeros only", isUnseen: false },
        "it begins with zeros only",
      ],
      ["noise", { kind: "unknown", why: "has no partition table", isUnseen: false }, "it is no file system"],
    ] satisfies readonly [string, DiskContent, string | undefined][]).map((
      [name, squashfs, fault],
    ): [string, Partial<LayerFindings>, boolean, string] => [
      `beside a squashfs layer that holds ${name}`,
      { kernel: BZIMAGE, squashfs },
      true,
      `the kernel is a valid bzImage and no initramfs${
        fault === undefined ? "" : `, and a squashfs layer that is none (${fault}), which is left out`
      }`,
    ]),
    [
      "an initramfs without kernel",
      { initramfs: { isInitramfs: true } },
      false,
      "the image has no kernel layer",
    ],
  ])("kernel: %s", (_name, known, possible, why) => {
    expect(verdictOf("kernel", findings(known))).toEqual([possible, why]);
  });

  it.each<[string, KernelContent, BootWish["firmware"], boolean, string]>([
    [
      "a kernel under bios",
      BZIMAGE,
      "bios",
      false,
      'firmware "bios" was asked for, direct kernel boot has none',
    ],
    [
      "a kernel under uefi",
      BZIMAGE,
      "uefi",
      true,
      "the kernel is a valid bzImage and no initramfs, under uefi",
    ],
    [
      "a kernel without EFI stub under uefi",
      BZIMAGE_WITHOUT_EFI,
      "uefi",
      false,
      "the kernel is a bzImage without the EFI stub that uefi needs",
    ],
    [
      "an EFI program under uefi",
      EFI_KERNEL,
      "uefi",
      true,
      "the kernel is a plain EFI program and no initramfs, under uefi",
    ],
  ])("kernel: %s", (_name, kernel, firmware, possible, why) => {
    expect(verdictOf("kernel", findings({ kernel }), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, Partial<LayerFindings>, BootWish["firmware"], boolean | null, string]>([
    ["a UKI", { uki: UKI }, "auto", true, "the uki layer is a valid unified kernel image"],
    ["a UKI under uefi", { uki: UKI }, "uefi", true, "the uki layer is a valid unified kernel image"],
    [
      "a UKI under bios",
      { uki: UKI },
      "bios",
      false,
      'firmware "bios" was asked for, a unified kernel image needs uefi',
    ],
    [
      "a UKI of the other architecture",
      { architecture: "arm64", uki: UKI },
      "auto",
      false,
      "the unified kernel image is for amd64, the manifest for arm64",
    ],
    [
      "HD19 something else",
      { uki: { kind: "not-a-uki", why: "it has two sections .cmdline", fault: "FORMAT_UNSAFE" } },
      "auto",
      false,
      "the uki layer is no unified kernel image: it has two sections .cmdline",
    ],
    [
      "something unseen",
      { uki: { kind: "unknown", why: "cannot be told from its first 4 KiB" } },
      "auto",
      null,
      "whether the uki layer is a unified kernel image cannot be told from its first 4 KiB",
    ],
  ])("uki: %s", (_name, known, firmware, possible, why) => {
    expect(verdictOf("uki", findings(known), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, Partial<LayerFindings>, BootWish["firmware"], boolean | null, string]>([
    ["one for both", { iso: EITHER_ISO }, "auto", true, "the ISO image boots by uefi"],
    ["one for both under bios", { iso: EITHER_ISO }, "bios", true, "the ISO image boots by bios"],
    ["one for bios", { iso: BIOS_ISO }, "auto", true, "the ISO image boots by bios"],
    [
      "one for bios under uefi",
      { iso: BIOS_ISO },
      "uefi",
      false,
      'the ISO image boots by bios only, firmware "uefi" was asked for',
    ],
    [
      "one for uefi under bios",
      { iso: UEFI_ISO },
      "bios",
      false,
      'the ISO image boots by uefi only, firmware "bios" was asked for',
    ],
    [
      "one for nothing",
      { iso: iso(false, false) },
      "auto",
      false,
      "the ISO image boots by nothing, amd64 machines need uefi or bios",
    ],
    [
      "one for bios on arm64",
      { architecture: "arm64", iso: BIOS_ISO },
      "auto",
      false,
      "the ISO image boots by bios only, arm64 machines need uefi",
    ],
    [
      "one for both under bios on arm64",
      { architecture: "arm64", iso: EITHER_ISO },
      "bios",
      false,
      "arm64 machines have no bios",
    ],
    [
      "one whose catalog was not seen",
      { iso: iso(undefined, undefined) },
      "auto",
      null,
      "whether the ISO image boots cannot be told from its first 64 KiB",
    ],
    [
      "something unseen",
      { iso: { kind: "unknown", why: "cannot be told without its bytes" } },
      "auto",
      null,
      "whether the iso layer is an ISO image cannot be told without its bytes",
    ],
    [
      "HD16 something else",
      {
        iso: {
          kind: "not-an-iso",
          why: "it has no volume descriptor of ISO 9660 or UDF",
          fault: "FORMAT_MISMATCH",
        },
      },
      "auto",
      false,
      "the iso layer is no ISO image: it has no volume descriptor of ISO 9660 or UDF",
    ],
  ])("iso: %s", (_name, known, firmware, possible, why) => {
    expect(verdictOf("iso", findings(known), wish("auto", firmware))).toEqual([possible, why]);
  });
});
