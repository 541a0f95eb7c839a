import type { DomainBoot, DomainDefinition } from "../domain_definition.ts";
import { blockArguments } from "./block.ts";
import { optionValue } from "./option.ts";

/** Names of the flash chips' block nodes, for the machine to refer to. */
export const UEFI_LOADER_NODE = "uefi-loader";
export const NVRAM_NODE = "nvram";

export function bootArguments({ boot, ignitionPath }: DomainDefinition): string[] {
  return [...firmwareArguments(boot), ...kernelArguments(boot), ...ignitionArguments(ignitionPath)];
}

/** @see https://coreos.github.io/ignition/supported-platforms/ (QEMU) */
function ignitionArguments(path: string | null): string[] {
  return path === null ? [] : ["-fw_cfg", `name=opt/com.coreos/config,file=${optionValue(path)}`];
}

function firmwareArguments({ firmware }: DomainBoot): string[] {
  if (firmware.kind === "none") return [];
  // As libvirt has it: only the devices with a bootindex are tried.
  const strict = ["-boot", "strict=on"];
  if (firmware.kind === "bios") return strict;
  const { loaderPath, loaderFormat, nvramPath, nvramFormat, secureBoot } = firmware;
  return [
    ...strict,
    // Only System Management Mode may write the variables, and a guest cannot sleep its way out of it.
    ...(secureBoot ? ["-global", "driver=cfi.pflash01,property=secure,value=on"] : []),
    ...(secureBoot ? ["-global", "ICH9-LPC.disable_s3=1"] : []),
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
