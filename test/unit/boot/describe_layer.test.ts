import { describe, expect, it } from "vitest";
import type { LayerFindings } from "../../../src/boot/boot_verdicts.ts";
import { describeLayer } from "../../../src/boot/describe_layer.ts";
import type { DiskContent } from "../../../src/boot/disk_content.ts";
import type { Partition } from "../../../src/boot/partition_table.ts";
import type { Role } from "../../../src/boot/prepared_boot.ts";
import {
  BIOS_DISK,
  BZIMAGE,
  DUMMY,
  EFI_DISK,
  EITHER_ISO,
  EXT,
  findings,
  iso,
  SQUASHFS,
  UKI,
  UKI_AS_KERNEL,
  UNSEEN,
} from "../../support/boot_findings.ts";

function disk(...kinds: readonly (readonly [type: string, name: string | null])[]): DiskContent {
  const partitions = kinds.map(([type, name], i): Partition => ({
    number: i + 1,
    type,
    name,
    startBytes: 4096,
    sizeBytes: 4096,
  }));
  return { ...EFI_DISK, partitions };
}

const ESP = ["C1", "EFI system partition"] as const;
const LINUX = ["0F", "Linux file system"] as const;
const OSREL = 'ID=demo\nPRETTY_NAME="Demo Linux 1 (one)"\nNAME=Demo';

describe("describeLayer", () => {
  it.each<[Role, Partial<LayerFindings>, string | null]>([
    ["rootfs", { rootfs: disk(ESP, LINUX, LINUX) }, "GPT disk: EFI system partition, 2 x Linux file system"],
    ["rootfs", { rootfs: BIOS_DISK }, "MBR disk: no partitions"],
    [
      "rootfs",
      { rootfs: disk(...Array.from({ length: 7 }, (_, i) => [`T${i}`, null] as const)) },
      "GPT disk: type T0, type T1, type T2, type T3, type T4, 2 other kinds",
    ],
    ["rootfs", { rootfs: EXT }, "ext4 file system"],
    ["rootfs", { rootfs: UNSEEN }, null],
    ["rootfs", { rootfs: { kind: "unusable", why: "Cannot use it" } }, null],
    ["squashfs", { squashfs: SQUASHFS }, "squashfs file system"],
    ["squashfs", { squashfs: EXT }, "no squashfs: it holds ext4"],
    ["kernel", { kernel: BZIMAGE }, "bzImage for amd64"],
    [
      "kernel",
      { kernel: { ...BZIMAGE, version: "6.1.0-demo (me@here) #1" } },
      "bzImage for amd64, 6.1.0-demo (me@here) #1",
    ],
    ["kernel", { kernel: UKI_AS_KERNEL, kernelUki: UKI }, "unified kernel image for amd64"],
    ["kernel", { kernel: DUMMY }, null],
    ["initramfs", { initramfs: { isInitramfs: true } }, null],
    [
      "initramfs",
      { initramfs: { isInitramfs: false, why: "the file is empty" } },
      "no initramfs: the file is empty",
    ],
    [
      "uki",
      { uki: { ...UKI, osrel: OSREL, uname: "6.1.0-demo" } },
      "unified kernel image for amd64, Demo Linux 1 (one), kernel 6.1.0-demo",
    ],
    ["uki", { uki: { ...UKI, osrel: "PRETTY_NAME=Demo" } }, "unified kernel image for amd64, Demo"],
    ["iso", { iso: EITHER_ISO }, "disc image, boots by bios and uefi"],
    [
      "iso",
      { iso: { ...iso(true, false), volumeId: "DEMO", hasUdf: true, hybrid: "mbr" } },
      'disc image "DEMO", with UDF, boots by bios, with MBR for USB sticks',
    ],
  ])("says of a %s %o: %s", (role, known, summary) => {
    const found = findings(known);
    expect(describeLayer(role, found)).toEqual({ summary, content: role === "cmdline" ? null : found[role] });
  });

  it("says nothing of a layer that nobody looked at", () => {
    for (const role of ["rootfs", "cmdline", "iso"] as const) {
      expect(describeLayer(role, findings())).toEqual({ summary: null, content: null });
    }
  });
});
