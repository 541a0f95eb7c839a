import type { Architecture } from "../../image/platform.ts";
import type { DomainBoot, DomainDefinition, FirmwareFormat } from "../domain_definition.ts";
import { element, textElement, type XmlElement } from "./xml_element.ts";

const MACHINES: Readonly<Record<Architecture, Readonly<Record<string, string>>>> = {
  amd64: { arch: "x86_64", machine: "q35" },
  arm64: { arch: "aarch64", machine: "virt" },
};

export function osElement(definition: DomainDefinition): XmlElement {
  const { name, attributes, content } = bootElement(definition);
  // Without the last the entries of sysinfo stay unused.
  return { name, attributes, content: [...content, element("smbios", { mode: "sysinfo" })] };
}

/** What boots, and nothing that needs another part of the document. */
export function bootElement(
  { architecture, boot }: DomainDefinition,
): XmlElement & { content: XmlElement[] } {
  return {
    name: "os",
    attributes: {},
    content: [
      textElement("type", "hvm", MACHINES[architecture]),
      ...firmwareElements(boot),
      ...kernelElements(boot),
    ],
  };
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
