import { describe, expect, it } from "vitest";
import {
  type BootDecision,
  type BootWish,
  decideBoot,
  type LayerFindings,
  modeVerdicts,
  requireLayersFor,
} from "../../../src/boot/decide_boot.ts";
import type { DiskContent } from "../../../src/boot/disk_content.ts";
import type { KernelContent } from "../../../src/boot/kernel_content.ts";
import type { BootMode, Role } from "../../../src/boot/prepared_boot.ts";
import { refusalOf } from "../../support/refusal_of.ts";

const AUTO: BootWish = { boot: "auto", firmware: "auto" };
const wish = (boot: BootWish["boot"], firmware: BootWish["firmware"] = "auto"): BootWish => ({ boot, firmware });

const disk = (table: "gpt" | "mbr", hasEfiSystemPartition: boolean, hasBiosBootCode: boolean): DiskContent => ({
  kind: "partitioned",
  table,
  hasEfiSystemPartition,
  hasBiosBootCode,
});
const EFI_DISK = disk("gpt", true, false);
const BIOS_DISK = disk("mbr", false, true);
const EITHER_DISK = disk("gpt", true, true);
const DEAD_DISK = disk("gpt", false, false);
const EXT: DiskContent = { kind: "file-system", name: "ext" };
const BZIMAGE: KernelContent = { kind: "kernel", format: "bzImage", architecture: "amd64" };
const ARM_IMAGE: KernelContent = { kind: "kernel", format: "arm64 Image", architecture: "arm64" };
const DUMMY: KernelContent = { kind: "not-a-kernel", why: "it begins with zeros only: a dummy" };

/** Findings of an amd64 image; its roles are those it says something about, and the further ones. */
function findings(known: Partial<LayerFindings> = {}, ...further: readonly Role[]): LayerFindings {
  const roles = (["rootfs", "kernel", "initramfs"] as const).filter((role) => known[role] !== undefined);
  return { architecture: "amd64", roles: new Set([...roles, ...further]), ...known };
}

function verdictOf(mode: BootMode, found: LayerFindings, wished: BootWish = AUTO): readonly [boolean, string] {
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
    ["an EFI disk under uefi", EFI_DISK, "uefi", true, "the rootfs is a GPT disk with an EFI system partition"],
    ["an EFI disk under bios", EFI_DISK, "bios", false, "the rootfs is a GPT disk without the boot code that bios needs"],
    ["an EFI disk with an MBR", disk("mbr", true, false), "auto", true, "the rootfs is an MBR disk with an EFI system partition"],
    ["a BIOS disk", BIOS_DISK, "auto", true, "the rootfs is an MBR disk with BIOS boot code"],
    ["a BIOS disk under bios", BIOS_DISK, "bios", true, "the rootfs is an MBR disk with BIOS boot code"],
    ["a BIOS disk under uefi", BIOS_DISK, "uefi", false, "the rootfs is an MBR disk without the EFI system partition that uefi needs"],
    ["a disk for both", EITHER_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    ["a disk for both under bios", EITHER_DISK, "bios", true, "the rootfs is a GPT disk with BIOS boot code"],
    ["a disk for both under uefi", EITHER_DISK, "uefi", true, "the rootfs is a GPT disk with an EFI system partition"],
    ["a disk for neither", DEAD_DISK, "auto", false, "the rootfs is a GPT disk with neither an EFI system partition nor BIOS boot code"],
    ["a bare file system", EXT, "auto", false, "the rootfs is a bare ext file system without boot loader"],
    ["something unknown", { kind: "unknown" }, "auto", false, "the rootfs has no partition table"],
    ["a container", { kind: "container", name: "qcow2" }, "auto", false, "the rootfs has no partition table"],
  ])("disk: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ rootfs }), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, DiskContent, BootWish["firmware"], boolean, string]>([
    ["an EFI disk", EFI_DISK, "auto", true, "the rootfs is a GPT disk with an EFI system partition"],
    ["a BIOS disk", BIOS_DISK, "auto", false, "the rootfs is an MBR disk without the EFI system partition that arm64 machines need"],
    ["a disk for both under bios", EITHER_DISK, "bios", false, "arm64 machines have no bios"],
  ])("disk on arm64: %s", (_name, rootfs, firmware, possible, why) => {
    expect(verdictOf("disk", findings({ architecture: "arm64", rootfs }), wish("auto", firmware))).toEqual([possible, why]);
  });

  it.each<[string, Partial<LayerFindings>, boolean, string]>([
    ["bzImage with initramfs", { kernel: BZIMAGE, initramfs: { isInitramfs: true } }, true, "the kernel is a valid bzImage with initramfs"],
    ["bzImage alone", { kernel: BZIMAGE }, true, "the kernel is a valid bzImage and no initramfs"],
    [
      "bzImage with a dummy initramfs",
      { kernel: BZIMAGE, initramfs: { isInitramfs: false } },
      true,
      "the kernel is a valid bzImage and an initramfs layer that is none, which is left out",
    ],
    ["arm64 Image", { architecture: "arm64", kernel: ARM_IMAGE }, true, "the kernel is a valid arm64 Image and no initramfs"],
    ["HD17 a kernel of the other architecture", { kernel: ARM_IMAGE }, false, "the kernel is for arm64, the manifest for amd64"],
    ["a dummy", { kernel: DUMMY }, false, "the kernel layer is no kernel: it begins with zeros only: a dummy"],
    [
      "a plain EFI program",
      { kernel: { kind: "kernel", format: "EFI/PE", architecture: "amd64" } },
      false,
      "the kernel is a plain EFI program, which direct kernel boot cannot start",
    ],
    ["an initramfs without kernel", { initramfs: { isInitramfs: true } }, false, "the image has no kernel layer"],
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

describe("decideBoot", () => {
  it.each<[string, LayerFindings, BootWish, Omit<BootDecision, "modes">]>([
    ["an EFI disk", findings({ rootfs: EFI_DISK }), AUTO, {
      mode: "disk",
      firmware: "uefi",
      reason: "chosen: the rootfs is a GPT disk with an EFI system partition",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    ["a BIOS disk", findings({ rootfs: BIOS_DISK }), AUTO, {
      mode: "disk",
      firmware: "bios",
      reason: "chosen: the rootfs is an MBR disk with BIOS boot code",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    ["a disk for both, by uefi", findings({ rootfs: EITHER_DISK }), AUTO, {
      mode: "disk",
      firmware: "uefi",
      reason: "chosen: the rootfs is a GPT disk with an EFI system partition",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    ["a disk for both by bios, when asked", findings({ rootfs: EITHER_DISK }), wish("auto", "bios"), {
      mode: "disk",
      firmware: "bios",
      reason: "chosen: the rootfs is a GPT disk with BIOS boot code",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    [
      "the disk before kernel and squashfs",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      AUTO,
      {
        mode: "disk",
        firmware: "uefi",
        reason: "chosen: the rootfs is a GPT disk with an EFI system partition",
        diskRoles: ["rootfs"],
        usesInitramfs: false,
      },
    ],
    [
      "the kernel beside a disk when asked, without that disk",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      wish("kernel"),
      {
        mode: "kernel",
        firmware: "none",
        reason: "asked for: the kernel is a valid bzImage with initramfs",
        diskRoles: ["squashfs"],
        usesInitramfs: true,
      },
    ],
    [
      "a kernel with its bare rootfs, then the squashfs",
      findings({ rootfs: EXT, kernel: BZIMAGE, initramfs: { isInitramfs: true } }, "squashfs"),
      AUTO,
      {
        mode: "kernel",
        firmware: "none",
        reason: "chosen: the kernel is a valid bzImage with initramfs",
        diskRoles: ["rootfs", "squashfs"],
        usesInitramfs: true,
      },
    ],
    ["a kernel alone", findings({ kernel: BZIMAGE }), AUTO, {
      mode: "kernel",
      firmware: "none",
      reason: "chosen: the kernel is a valid bzImage and no initramfs",
      diskRoles: [],
      usesInitramfs: false,
    }],
    ["a kernel without its dummy initramfs", findings({ kernel: BZIMAGE, initramfs: { isInitramfs: false } }), AUTO, {
      mode: "kernel",
      firmware: "none",
      reason: "chosen: the kernel is a valid bzImage and an initramfs layer that is none, which is left out",
      diskRoles: [],
      usesInitramfs: false,
    }],
    ["a kernel beside a disk that cannot boot", findings({ rootfs: DEAD_DISK, kernel: BZIMAGE }), AUTO, {
      mode: "kernel",
      firmware: "none",
      reason: "chosen: the kernel is a valid bzImage and no initramfs",
      diskRoles: [],
      usesInitramfs: false,
    }],
    ["the disk under uefi, beside a kernel", findings({ rootfs: EFI_DISK, kernel: BZIMAGE }), wish("auto", "uefi"), {
      mode: "disk",
      firmware: "uefi",
      reason: "chosen: the rootfs is a GPT disk with an EFI system partition",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    ["a disk beside dummies", findings({ rootfs: BIOS_DISK, kernel: DUMMY, initramfs: { isInitramfs: false } }), wish("disk"), {
      mode: "disk",
      firmware: "bios",
      reason: "asked for: the rootfs is an MBR disk with BIOS boot code",
      diskRoles: ["rootfs"],
      usesInitramfs: false,
    }],
    ["an arm64 kernel", findings({ architecture: "arm64", kernel: ARM_IMAGE }), AUTO, {
      mode: "kernel",
      firmware: "none",
      reason: "chosen: the kernel is a valid arm64 Image and no initramfs",
      diskRoles: [],
      usesInitramfs: false,
    }],
  ])("boots %s", (_name, found, wished, expected) => {
    expect(decideBoot(found, wished)).toEqual({ ...expected, modes: modeVerdicts(found, wished) });
  });

  it("refuses dummies with a bare rootfs, telling why not for every mode", () => {
    const found = findings({ rootfs: EXT, kernel: DUMMY, initramfs: { isInitramfs: false } }, "uki");
    const modes = [
      { mode: "disk", possible: false, why: "the rootfs is a bare ext file system without boot loader" },
      { mode: "kernel", possible: false, why: "the kernel layer is no kernel: it begins with zeros only: a dummy" },
      { mode: "uki", possible: false, why: "this version does not boot uki layers" },
      { mode: "iso", possible: false, why: "the image has no iso layer" },
    ];
    expect(refusalOf(() => decideBoot(found, AUTO))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: "Cannot boot the image in any mode: disk: the rootfs is a bare ext file system without boot loader; " +
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
  ])("refuses mode %s under %s, when asked for and impossible, though another is possible", (boot, firmware, why) => {
    const found = findings({ rootfs: EFI_DISK, kernel: BZIMAGE });
    expect(refusalOf(() => decideBoot(found, wish(boot, firmware)))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: `Cannot boot the image in mode "${boot}": ${why}`,
      details: { modes: modeVerdicts(found, wish(boot, firmware)) },
    });
  });
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
    ["kernel without kernel", ["rootfs", "initramfs"], wish("kernel"), 'in mode "kernel": the image has no kernel layer'],
    ["kernel under a firmware", ["kernel"], wish("kernel", "uefi"), 'in mode "kernel": firmware "uefi" was asked for, direct kernel boot has none'],
    ["uki, which this version does not boot", ["uki", "kernel"], wish("uki"), 'in mode "uki": this version does not boot uki layers'],
    [
      "a firmware for a kernel alone",
      ["kernel"],
      wish("auto", "bios"),
      'in any mode: disk: the image has no rootfs layer; kernel: firmware "bios" was asked for, direct kernel boot has none; ' +
      "uki: the image has no uki layer; iso: the image has no iso layer",
    ],
  ])("refuses %s", (_name, roles, wished, tail) => {
    const { code, message } = refusalOf(() => requireLayersFor(new Set(roles), wished));
    expect({ code, message }).toEqual({ code: "BOOT_MODE_IMPOSSIBLE", message: `Cannot boot the image ${tail}` });
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
