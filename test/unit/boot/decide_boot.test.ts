import { describe, expect, it } from "vitest";
import {
  type BootDecision,
  type BootWish,
  decideBoot,
  type LayerFindings,
  modeVerdicts,
  requireLayersFor,
} from "../../../src/boot/decide_boot.ts";
import type { BootMode, Role } from "../../../src/boot/prepared_boot.ts";
import {
  ARM_IMAGE,
  AUTO,
  BIOS_DISK,
  BZIMAGE,
  DEAD_DISK,
  DUMMY,
  EFI_DISK,
  EITHER_DISK,
  EXT,
  findings,
  wish,
} from "../../support/boot_findings.ts";
import { refusalOf } from "../../support/failures.ts";

type Expected = Omit<BootDecision, "modes">;

function byDisk(firmware: "bios" | "uefi", reason: string): Expected {
  return { mode: "disk", firmware, reason, diskRoles: ["rootfs"], usesInitramfs: false };
}

function byKernel(reason: string, diskRoles: Expected["diskRoles"] = [], usesInitramfs = false): Expected {
  return { mode: "kernel", firmware: "none", reason, diskRoles, usesInitramfs };
}

describe("decideBoot", () => {
  it.each<[string, LayerFindings, BootWish, Expected]>([
    [
      "an EFI disk",
      findings({ rootfs: EFI_DISK }),
      AUTO,
      byDisk("uefi", "chosen: the rootfs is a GPT disk with an EFI system partition"),
    ],
    [
      "a BIOS disk",
      findings({ rootfs: BIOS_DISK }),
      AUTO,
      byDisk("bios", "chosen: the rootfs is an MBR disk with BIOS boot code"),
    ],
    [
      "a disk for both, by uefi",
      findings({ rootfs: EITHER_DISK }),
      AUTO,
      byDisk("uefi", "chosen: the rootfs is a GPT disk with an EFI system partition"),
    ],
    [
      "a disk for both by bios, when asked",
      findings({ rootfs: EITHER_DISK }),
      wish("auto", "bios"),
      byDisk("bios", "chosen: the rootfs is a GPT disk with BIOS boot code"),
    ],
    [
      "the disk before kernel and squashfs",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      AUTO,
      byDisk("uefi", "chosen: the rootfs is a GPT disk with an EFI system partition"),
    ],
    [
      "the kernel beside a disk when asked, without that disk",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      wish("kernel"),
      byKernel("asked for: the kernel is a valid bzImage with initramfs", ["squashfs"], true),
    ],
    [
      "a kernel with its bare rootfs, then the squashfs",
      findings({ rootfs: EXT, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      AUTO,
      byKernel("chosen: the kernel is a valid bzImage with initramfs", ["rootfs", "squashfs"], true),
    ],
    [
      "a kernel alone",
      findings({ kernel: BZIMAGE }),
      AUTO,
      byKernel("chosen: the kernel is a valid bzImage and no initramfs"),
    ],
    [
      "a kernel without its dummy initramfs",
      findings({ kernel: BZIMAGE, initramfs: { isInitramfs: false } }),
      AUTO,
      byKernel(
        "chosen: the kernel is a valid bzImage and an initramfs layer that is none, which is left out",
      ),
    ],
    [
      "a kernel beside a disk that cannot boot",
      findings({ rootfs: DEAD_DISK, kernel: BZIMAGE }),
      AUTO,
      byKernel("chosen: the kernel is a valid bzImage and no initramfs"),
    ],
    [
      "the disk under uefi, beside a kernel",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE }),
      wish("auto", "uefi"),
      byDisk("uefi", "chosen: the rootfs is a GPT disk with an EFI system partition"),
    ],
    [
      "a disk beside dummies",
      findings({ rootfs: BIOS_DISK, kernel: DUMMY, initramfs: { isInitramfs: false } }),
      wish("disk"),
      byDisk("bios", "asked for: the rootfs is an MBR disk with BIOS boot code"),
    ],
    [
      "an arm64 kernel",
      findings({ architecture: "arm64", kernel: ARM_IMAGE }),
      AUTO,
      byKernel("chosen: the kernel is a valid arm64 Image and no initramfs"),
    ],
  ])("boots %s", (_name, found, wished, expected) => {
    expect(decideBoot(found, wished)).toEqual({ ...expected, modes: modeVerdicts(found, wished) });
  });

  it("refuses dummies with a bare rootfs, telling why not for every mode", () => {
    const found = findings({ rootfs: EXT, kernel: DUMMY, initramfs: { isInitramfs: false } }, "uki");
    const modes = [
      { mode: "disk", possible: false, why: "the rootfs is a bare ext file system without boot loader" },
      {
        mode: "kernel",
        possible: false,
        why: "the kernel layer is no kernel: it begins with zeros only: a dummy",
      },
      { mode: "uki", possible: false, why: "this version does not boot uki layers" },
      { mode: "iso", possible: false, why: "the image has no iso layer" },
    ];
    expect(refusalOf(() => decideBoot(found, AUTO))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message:
        "Cannot boot the image in any mode: disk: the rootfs is a bare ext file system without boot loader; " +
        "kernel: the kernel layer is no kernel: it begins with zeros only: a dummy; " +
        "uki: this version does not boot uki layers; iso: the image has no iso layer",
      details: { modes },
    });
  });

  it.each<[BootMode, BootWish["firmware"], string]>([
    ["disk", "bios", "the rootfs is a GPT disk without the boot code that bios needs"],
    ["kernel", "uefi", 'firmware "uefi" was asked for, direct kernel boot has none'],
    ["uki", "auto", "the image has no uki layer"],
    ["iso", "auto", "the image has no iso layer"],
  ])(
    "refuses mode %s under %s, when asked for and impossible, though another is possible",
    (boot, firmware, why) => {
      const found = findings({ rootfs: EFI_DISK, kernel: BZIMAGE });
      expect(refusalOf(() => decideBoot(found, wish(boot, firmware)))).toEqual({
        code: "BOOT_MODE_IMPOSSIBLE",
        message: `Cannot boot the image in mode "${boot}": ${why}`,
        details: { modes: modeVerdicts(found, wish(boot, firmware)) },
      });
    },
  );
});

describe("requireLayersFor", () => {
  it.each<[string, readonly Role[], BootWish]>([
    ["a disk", ["rootfs"], AUTO],
    ["a disk, when asked for", ["rootfs", "kernel"], wish("disk", "bios")],
    ["a kernel", ["kernel"], AUTO],
    ["a kernel, when asked for", ["kernel", "uki"], wish("kernel")],
    ["a disk under uefi beside a kernel", ["rootfs", "kernel"], wish("auto", "uefi")],
  ])("lets %s pass: only its bytes can tell", (_name, roles, wished) => {
    requireLayersFor(new Set(roles), wished);
  });

  it("refuses an image that has nothing to boot, with a verdict for every mode", () => {
    expect(refusalOf(() => requireLayersFor(new Set<Role>(["initramfs", "squashfs", "uki"]), AUTO))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: "Cannot boot the image in any mode: disk: the image has no rootfs layer; " +
        "kernel: the image has no kernel layer; uki: this version does not boot uki layers; iso: the image has no iso layer",
      details: {
        modes: [
          { mode: "disk", possible: false, why: "the image has no rootfs layer" },
          { mode: "kernel", possible: false, why: "the image has no kernel layer" },
          { mode: "uki", possible: false, why: "this version does not boot uki layers" },
          { mode: "iso", possible: false, why: "the image has no iso layer" },
        ],
      },
    });
  });

  it.each<[string, readonly Role[], BootWish, string]>([
    ["disk without rootfs", ["kernel"], wish("disk"), 'in mode "disk": the image has no rootfs layer'],
    [
      "kernel without kernel",
      ["rootfs", "initramfs"],
      wish("kernel"),
      'in mode "kernel": the image has no kernel layer',
    ],
    [
      "kernel under a firmware",
      ["kernel"],
      wish("kernel", "uefi"),
      'in mode "kernel": firmware "uefi" was asked for, direct kernel boot has none',
    ],
    [
      "uki, which this version does not boot",
      ["uki", "kernel"],
      wish("uki"),
      'in mode "uki": this version does not boot uki layers',
    ],
    [
      "a firmware for a kernel alone",
      ["kernel"],
      wish("auto", "bios"),
      'in any mode: disk: the image has no rootfs layer; kernel: firmware "bios" was asked for, direct kernel boot has none; ' +
      "uki: the image has no uki layer; iso: the image has no iso layer",
    ],
  ])("refuses %s", (_name, roles, wished, tail) => {
    const { code, message } = refusalOf(() => requireLayersFor(new Set(roles), wished));
    expect({ code, message }).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: `Cannot boot the image ${tail}`,
    });
  });

  it("never refuses what decideBoot would take", () => {
    const disks = [undefined, EFI_DISK, BIOS_DISK, EITHER_DISK, DEAD_DISK, EXT, { kind: "unknown" } as const];
    const kernels = [undefined, BZIMAGE, ARM_IMAGE, DUMMY];
    let decided = 0;
    for (const rootfs of disks) {
      for (const kernel of kernels) {
        for (const boot of ["auto", "disk", "kernel", "uki", "iso"] as const) {
          for (const firmware of ["auto", "bios", "uefi"] as const) {
            const found = findings({ rootfs, kernel }, "uki", "iso");
            if (!isPossible(() => decideBoot(found, wish(boot, firmware)))) continue;
            decided++;
            requireLayersFor(found.roles, wish(boot, firmware));
          }
        }
      }
    }
    expect(decided).toBeGreaterThan(50);
  });
});

function isPossible(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    // Which refusal it is, other tests tell.
    return false;
  }
}
