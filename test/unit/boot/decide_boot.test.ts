import { describe, expect, it } from "vitest";
import {
  type BootDecision,
  type BootWish,
  decideBoot,
  foreseeBoot,
  type LayerFindings,
  modeVerdicts,
  requireLayersFor,
} from "../../../src/boot/decide_boot.ts";
import type { ErrorCode } from "../../../src/errors.ts";
import type { KernelContent } from "../../../src/boot/kernel_content.ts";
import type { BootMode, Role } from "../../../src/boot/prepared_boot.ts";
import {
  ARM_IMAGE,
  AUTO,
  BIOS_DISK,
  BIOS_ISO,
  BZIMAGE,
  DEAD_DISK,
  DUMMY,
  EFI_DISK,
  EFI_KERNEL,
  EITHER_DISK,
  EITHER_ISO,
  EXT,
  findings,
  rolesOf,
  SQUASHFS,
  UKI,
  UKI_AS_KERNEL,
  UNSEEN,
  wish,
} from "../../support/boot_findings.ts";
import { refusalOf } from "../../support/failures.ts";

type Expected = Omit<BootDecision, "modes">;

/** Layers of a few bytes, in these roles. */
function sizesOf(roles: Iterable<Role>): ReadonlyMap<Role, number> {
  return new Map(Array.from(roles, (role) => [role, 4096]));
}

function byDisk(firmware: "bios" | "uefi", reason: string): Expected {
  return {
    mode: "disk",
    firmware,
    reason,
    diskRoles: ["rootfs"],
    usesInitramfs: false,
    commandLineLimitBytes: null,
  };
}

function byKernel(reason: string, diskRoles: Expected["diskRoles"] = [], usesInitramfs = false): Expected {
  return {
    mode: "kernel",
    firmware: "none",
    reason,
    diskRoles,
    usesInitramfs,
    commandLineLimitBytes: 2047,
  };
}

function byUki(reason: string, diskRoles: Expected["diskRoles"] = []): Expected {
  return {
    mode: "uki",
    firmware: "uefi",
    reason,
    diskRoles,
    usesInitramfs: false,
    commandLineLimitBytes: null,
  };
}

function byIso(firmware: "bios" | "uefi", reason: string): Expected {
  return { mode: "iso", firmware, reason, diskRoles: [], usesInitramfs: false, commandLineLimitBytes: null };
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
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true }, squashfs: SQUASHFS }),
      AUTO,
      byDisk("uefi", "chosen: the rootfs is a GPT disk with an EFI system partition"),
    ],
    [
      "the kernel beside a disk when asked, without that disk",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true }, squashfs: SQUASHFS }),
      wish("kernel"),
      byKernel("asked for: the kernel is a valid bzImage with initramfs", ["squashfs"], true),
    ],
    [
      "a kernel with its bare rootfs, then the squashfs",
      findings({ rootfs: EXT, kernel: BZIMAGE, initramfs: { isInitramfs: true }, squashfs: SQUASHFS }),
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
      {
        ...byKernel("chosen: the kernel is a valid arm64 Image and no initramfs"),
        commandLineLimitBytes: null,
      },
    ],
    [
      "a kernel with its squashfs alone",
      findings({ kernel: BZIMAGE, initramfs: { isInitramfs: true }, squashfs: SQUASHFS }),
      AUTO,
      byKernel("chosen: the kernel is a valid bzImage with initramfs", ["squashfs"], true),
    ],
    [
      "a kernel without the squashfs beside it that is none, saying so",
      findings({ kernel: BZIMAGE, initramfs: { isInitramfs: true }, squashfs: EXT }),
      AUTO,
      byKernel(
        "chosen: the kernel is a valid bzImage with initramfs, and a squashfs layer that is none (it holds ext4), " +
          "which is left out",
        [],
        true,
      ),
    ],
    [
      "a UKI without the squashfs beside it that is none, saying so",
      findings({ uki: UKI, squashfs: EXT }),
      AUTO,
      byUki(
        "chosen: the uki layer is a valid unified kernel image, and a squashfs layer that is none (it holds ext4), " +
          "which is left out",
      ),
    ],
    [
      "a kernel under uefi, when asked",
      findings({ kernel: BZIMAGE, initramfs: { isInitramfs: true } }),
      wish("auto", "uefi"),
      {
        ...byKernel(
          "chosen: the kernel is a valid bzImage with initramfs, under uefi",
          [],
          true,
        ),
        firmware: "uefi",
      },
    ],
    [
      "a kernel that only uefi can start, under uefi",
      findings({ kernel: EFI_KERNEL, initramfs: { isInitramfs: true } }),
      AUTO,
      {
        ...byKernel(
          "chosen: the kernel is a plain EFI program with initramfs, under uefi",
          [],
          true,
        ),
        firmware: "uefi",
        commandLineLimitBytes: null,
      },
    ],
    [
      "a kernel layer that is a unified kernel image, without the initramfs beside it",
      findings({ kernel: UKI_AS_KERNEL, initramfs: { isInitramfs: true } }),
      AUTO,
      {
        ...byKernel("chosen: the kernel is a unified kernel image, under uefi"),
        firmware: "uefi",
        commandLineLimitBytes: null,
      },
    ],
    [
      "a UKI, with the bare root and the squashfs beside it",
      findings({ rootfs: EXT, uki: UKI, squashfs: SQUASHFS }),
      AUTO,
      byUki("chosen: the uki layer is a valid unified kernel image", ["rootfs", "squashfs"]),
    ],
    [
      "the kernel before the UKI",
      findings({ kernel: BZIMAGE, uki: UKI, iso: EITHER_ISO }),
      AUTO,
      byKernel("chosen: the kernel is a valid bzImage and no initramfs"),
    ],
    [
      "the UKI beside a kernel when asked",
      findings({ rootfs: EFI_DISK, kernel: BZIMAGE, initramfs: { isInitramfs: true }, uki: UKI }),
      wish("uki", "uefi"),
      byUki("asked for: the uki layer is a valid unified kernel image"),
    ],
    [
      "the UKI before the ISO, and beside a dummy kernel",
      findings({ kernel: DUMMY, uki: UKI, iso: EITHER_ISO }),
      AUTO,
      byUki("chosen: the uki layer is a valid unified kernel image"),
    ],
    [
      "an ISO by uefi, when it can",
      findings({ iso: EITHER_ISO }),
      AUTO,
      byIso("uefi", "chosen: the ISO image boots by uefi"),
    ],
    [
      "an ISO by bios, when asked",
      findings({ iso: EITHER_ISO }),
      wish("iso", "bios"),
      byIso("bios", "asked for: the ISO image boots by bios"),
    ],
    [
      "an ISO that knows bios only, without the disks beside it",
      findings({ rootfs: EXT, iso: BIOS_ISO, squashfs: SQUASHFS }),
      AUTO,
      byIso("bios", "chosen: the ISO image boots by bios"),
    ],
    [
      "an ISO on arm64",
      findings({ architecture: "arm64", iso: EITHER_ISO }),
      AUTO,
      byIso("uefi", "chosen: the ISO image boots by uefi"),
    ],
  ])("boots %s", (_name, found, wished, expected) => {
    expect(decideBoot(found, wished)).toEqual({ ...expected, modes: modeVerdicts(found, wished) });
  });

  it("refuses dummies with a bare rootfs, telling why not for every mode", () => {
    const found = findings({ rootfs: EXT, kernel: DUMMY, initramfs: { isInitramfs: false } });
    const modes = [
      { mode: "disk", possible: false, why: "the rootfs is a bare ext4 file system without boot loader" },
      {
        mode: "kernel",
        possible: false,
        why: "the kernel layer is no kernel: it begins with zeros only: a dummy",
      },
      { mode: "uki", possible: false, why: "the image has no uki layer" },
      { mode: "iso", possible: false, why: "the image has no iso layer" },
    ];
    expect(refusalOf(() => decideBoot(found, AUTO))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message:
        "Cannot boot the image in any mode: disk: the rootfs is a bare ext4 file system without boot loader; " +
        "kernel: the kernel layer is no kernel: it begins with zeros only: a dummy; " +
        "uki: the image has no uki layer; iso: the image has no iso layer",
      details: { modes },
    });
  });

  const TEXT: KernelContent = {
    kind: "not-a-kernel",
    why: "it has no bzImage, arm64 Image or EFI/PE header",
    fault: "FORMAT_MISMATCH",
  };
  const OVERLAPPING = {
    kind: "not-a-uki",
    why: "its sections .linux and .cmdline overlap in the file",
    fault: "FORMAT_UNSAFE",
  } as const;
  const NO_ISO = {
    kind: "not-an-iso",
    why: "it has no volume descriptor",
    fault: "FORMAT_MISMATCH",
  } as const;

  it.each<[string, Partial<LayerFindings>, BootWish, ErrorCode, BootMode]>([
    ["HD17 a kernel that is text", { rootfs: EXT, kernel: TEXT }, AUTO, "FORMAT_MISMATCH", "kernel"],
    [
      "HD17 one that is asked for",
      { rootfs: EFI_DISK, kernel: TEXT },
      wish("kernel"),
      "FORMAT_MISMATCH",
      "kernel",
    ],
    ["HD17 a kernel for another architecture", { kernel: ARM_IMAGE }, AUTO, "FORMAT_MISMATCH", "kernel"],
    [
      "HD17 a kernel of 1 GiB",
      { kernel: { ...TEXT, fault: "LIMIT_EXCEEDED" } as const },
      AUTO,
      "LIMIT_EXCEEDED",
      "kernel",
    ],
    ["HD19 a UKI beside a dummy", { kernel: DUMMY, uki: OVERLAPPING }, AUTO, "FORMAT_UNSAFE", "uki"],
    [
      "HD19 a UKI in the kernel's place",
      { kernel: UKI_AS_KERNEL, kernelUki: OVERLAPPING },
      AUTO,
      "FORMAT_UNSAFE",
      "kernel",
    ],
    ["HD16 an ISO", { iso: NO_ISO }, AUTO, "FORMAT_MISMATCH", "iso"],
    ["the first of two", { uki: OVERLAPPING, iso: NO_ISO }, AUTO, "FORMAT_UNSAFE", "uki"],
    ["the one that is asked for", { uki: OVERLAPPING, iso: NO_ISO }, wish("iso"), "FORMAT_MISMATCH", "iso"],
  ])(
    "refuses %s that is not what it should be by what is wrong with it",
    (_name, known, wished, code, mode) => {
      const found = findings(known);
      const refusal = refusalOf(() => decideBoot(found, wished));
      const modes = modeVerdicts(found, wished);
      expect(refusal).toMatchObject({
        code,
        details: {
          modes,
          remedy: `publish the image anew, with a ${mode} layer that is what its media type says`,
        },
      });
      expect(refusal.message).toContain(modes.find((each) => each.mode === mode)?.why);
    },
  );

  it("boots by another mode beside a layer that is not what it should be", () => {
    const found = findings({ rootfs: EFI_DISK, kernel: TEXT, uki: OVERLAPPING, iso: NO_ISO });
    expect(decideBoot(found, AUTO).mode).toBe("disk");
  });

  it.each<[BootMode, BootWish["firmware"], string]>([
    ["disk", "bios", "the rootfs is a GPT disk without the boot code that bios needs"],
    ["kernel", "bios", 'firmware "bios" was asked for, direct kernel boot has none'],
    ["uki", "bios", "the image has no uki layer"],
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

describe("foreseeBoot", () => {
  const unseenKernel: KernelContent = { kind: "unknown", why: "cannot be told without its bytes" };

  it.each<[string, LayerFindings, BootWish]>([
    ["a disk", findings({ rootfs: EFI_DISK }), AUTO],
    ["a disk before a kernel that was not seen", findings({ rootfs: EFI_DISK, kernel: unseenKernel }), AUTO],
    [
      "a kernel beside a disk that was not seen, when asked",
      findings({ rootfs: UNSEEN, kernel: BZIMAGE }),
      wish("kernel"),
    ],
  ])("says of %s what decideBoot will", (_name, found, wished) => {
    expect(foreseeBoot(found, wished).decision).toEqual(decideBoot(found, wished));
  });

  it.each<[string, LayerFindings, BootWish]>([
    ["a disk that was not seen goes before the kernel", findings({ rootfs: UNSEEN, kernel: BZIMAGE }), AUTO],
    [
      "the mode that was asked for was not seen",
      findings({ rootfs: EFI_DISK, kernel: unseenKernel }),
      wish("kernel"),
    ],
    ["nothing is possible", findings({ kernel: DUMMY }), AUTO],
    ["what was asked for is impossible", findings({ rootfs: EFI_DISK }), wish("iso")],
  ])("decides nothing where %s", (_name, found, wished) => {
    expect(foreseeBoot(found, wished)).toEqual({ decision: null, modes: modeVerdicts(found, wished) });
  });

  it("leaves decideBoot, which boots nothing unseen, to say that it is not possible", () => {
    const found = findings({ rootfs: UNSEEN, kernel: BZIMAGE });
    expect(foreseeBoot(found, AUTO).modes[0]?.possible).toBe(null);
    expect(decideBoot(found, AUTO)).toMatchObject({
      mode: "kernel",
      modes: [{ mode: "disk", possible: false }, {}, {}, {}],
    });
  });
});

describe("requireLayersFor", () => {
  it.each<[string, readonly Role[], BootWish]>([
    ["a disk", ["rootfs"], AUTO],
    ["a disk, when asked for", ["rootfs", "kernel"], wish("disk", "bios")],
    ["a kernel", ["kernel"], AUTO],
    ["a kernel, when asked for", ["kernel", "uki"], wish("kernel")],
    ["a kernel under uefi", ["kernel"], wish("kernel", "uefi")],
    ["a UKI", ["uki", "squashfs"], AUTO],
    ["an ISO under bios", ["iso"], wish("iso", "bios")],
    ["a disk under uefi beside a kernel", ["rootfs", "kernel"], wish("auto", "uefi")],
  ])("lets %s pass: only its bytes can tell", (_name, roles, wished) => {
    requireLayersFor(sizesOf(roles), wished);
  });

  it("refuses an image that has nothing to boot, with a verdict for every mode", () => {
    expect(refusalOf(() => requireLayersFor(sizesOf(["initramfs", "squashfs"]), AUTO))).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: "Cannot boot the image in any mode: disk: the image has no rootfs layer; " +
        "kernel: the image has no kernel layer; uki: the image has no uki layer; iso: the image has no iso layer",
      details: {
        modes: [
          { mode: "disk", possible: false, why: "the image has no rootfs layer" },
          { mode: "kernel", possible: false, why: "the image has no kernel layer" },
          { mode: "uki", possible: false, why: "the image has no uki layer" },
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
      "kernel under bios",
      ["kernel"],
      wish("kernel", "bios"),
      'in mode "kernel": firmware "bios" was asked for, direct kernel boot has none',
    ],
    [
      "uki under bios",
      ["uki", "kernel"],
      wish("uki", "bios"),
      'in mode "uki": firmware "bios" was asked for, a unified kernel image needs uefi',
    ],
    [
      "a firmware for a kernel alone",
      ["kernel"],
      wish("auto", "bios"),
      'in any mode: disk: the image has no rootfs layer; kernel: firmware "bios" was asked for, direct kernel boot has none; ' +
      "uki: the image has no uki layer; iso: the image has no iso layer",
    ],
  ])("refuses %s", (_name, roles, wished, tail) => {
    const { code, message } = refusalOf(() => requireLayersFor(sizesOf(roles), wished));
    expect({ code, message }).toEqual({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: `Cannot boot the image ${tail}`,
    });
  });

  it.each<[string, ReadonlyMap<Role, number>, string]>([
    [
      "HD17 a kernel of 1 GiB",
      new Map([["kernel", 2 ** 30]]),
      "kernel: the kernel layer is no kernel: it has 1073741824 bytes, a kernel has less than 1073741824",
    ],
    [
      "a UKI over 4 GiB",
      new Map([["uki", 2 ** 32 + 1]]),
      "uki: the uki layer is no unified kernel image: it has 4294967297 bytes, at most 4294967296",
    ],
  ])("refuses %s by its size", (_name, sizes, why) => {
    const { code, message } = refusalOf(() => requireLayersFor(sizes, AUTO));
    expect([code, message]).toEqual(["LIMIT_EXCEEDED", expect.stringContaining(why)]);
    requireLayersFor(new Map([...sizes, ["rootfs", 4096]]), AUTO);
  });

  it("never refuses what decideBoot would take", () => {
    const disks = [undefined, EFI_DISK, BIOS_DISK, EITHER_DISK, DEAD_DISK, EXT, UNSEEN];
    const kernels = [undefined, BZIMAGE, EFI_KERNEL, UKI_AS_KERNEL, ARM_IMAGE, DUMMY];
    const others = [{}, { uki: UKI }, { iso: EITHER_ISO }, { uki: UKI, iso: BIOS_ISO }];
    const wishes = (["auto", "disk", "kernel", "uki", "iso"] as const).flatMap((boot) =>
      (["auto", "bios", "uefi"] as const).map((firmware) => wish(boot, firmware))
    );
    let decided = 0;
    for (const rootfs of disks) {
      for (const kernel of kernels) {
        for (const other of others) {
          for (const wished of wishes) {
            const found = findings({ rootfs, kernel, ...other });
            if (!isPossible(() => decideBoot(found, wished))) continue;
            decided++;
            requireLayersFor(sizesOf(rolesOf(found)), wished);
          }
        }
      }
    }
    expect(decided).toBeGreaterThan(500);
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
