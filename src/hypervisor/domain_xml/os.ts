import type { Architecture } from "../../image/platform.ts";
import type { DomainBoot, DomainDefinition, FirmwareFormat } from "../domain_definition.ts";
import { element, textElement, type XmlElement } from "./xml_element.ts";

const MACHINES: Readonly<Record<Architecture, Readonly<Record<string, string>>>> = {
  amd64: { arch: "x86_64", machine: "q35" },
  arm64: { arch: "aarch64", machine: "virt" },
};

export function osElement({ architecture, boot }: DomainDefinition): XmlElement {
  return element(
    "os",
    {},
    textElement("type", "hvm", MACHINES[architecture]),
    ...firmwareElements(boot),
    ...kernelElements(boot),
    // Without it the entries of sysinfo stay unused.
    element("smbios", { mode: "sysinfo" }),
  );
}

function kernelElements(boot: DomainBoot): XmlElement[] {
  if (boot.mode !== "kernel") return [];
  return [
    textElement("kernel", boot.kernelPath),
    // What IronCore calls initramfs is libvirt's initrd.
    ...(boot.initramfsPath === null ? [] : [textElement("initrd", boot.initramfsPath)]),
    ...(boot.cmdline === "" ? [] : [textElement("cmdline", boot.cmdline)]),
  ];
}

function firmwareElements({ firmware }: DomainBoot): XmlElement[] {
  if (firmware.kind !== "uefi") return [];
  const { loaderPath, loaderFormat, nvramPath, nvramFormat, secureBoot } = firmware;
  return [
    textElement("loader", loaderPath, {
      readonly: "yes",
      ...(secureBoot ? { secure: "yes" } : {}),
      type: "pflash",
      ...formatAttribute(loaderFormat),
    }),
    textElement("nvram", nvramPath, formatAttribute(nvramFormat)),
  ];
}

/** libvirt before 9.2 knows raw firmware only and has no such attribute; raw is every version's default. */
function formatAttribute(format: FirmwareFormat): Readonly<Record<string, string>> {
  return format === "raw" ? {} : { format };
}
