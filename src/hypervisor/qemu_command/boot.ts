import type { DomainBoot, DomainDefinition } from "../domain_definition.ts";
import { blockArguments } from "./block.ts";

/** Names of the flash chips' block nodes, for the machine to refer to. */
export const UEFI_LOADER_NODE = "uefi-loader";
export const NVRAM_NODE = "nvram";

export function bootArguments({ boot }: DomainDefinition): string[] {
  return [...firmwareArguments(boot), ...kernelArguments(boot)];
}

function firmwareArguments({ firmware }: DomainBoot): string[] {
  if (firmware.kind === "none") return [];
  // As libvirt has it: only the devices with a bootindex are tried.
  const strict = ["-boot", "strict=on"];
  if (firmware.kind === "bios") return strict;
  const { loaderPath, loaderFormat, nvramPath, nvramFormat } = firmware;
  return [
    ...strict,
    ...blockArguments({ nodeName: UEFI_LOADER_NODE, path: loaderPath, format: loaderFormat, readOnly: true }),
    ...blockArguments({ nodeName: NVRAM_NODE, path: nvramPath, format: nvramFormat, readOnly: false }),
  ];
}

function kernelArguments(boot: DomainBoot): string[] {
  if (boot.mode !== "kernel") return [];
  return [
    ...["-kernel", boot.kernelPath],
    // What IronCore calls initramfs is QEMU's initrd.
    ...(boot.initramfsPath === null ? [] : ["-initrd", boot.initramfsPath]),
    // These three are taken as they are; a comma must not be doubled, or the guest sees two.
    ...(boot.cmdline === "" ? [] : ["-append", boot.cmdline]),
  ];
}
