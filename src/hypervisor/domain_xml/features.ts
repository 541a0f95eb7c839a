import type { DomainDefinition } from "../domain_definition.ts";
import { element, type XmlElement } from "./xml_element.ts";

export function featuresElement(definition: DomainDefinition): XmlElement {
  return element("features", {}, ...featureElements(definition));
}

function featureElements({ architecture, acceleration, boot }: DomainDefinition): XmlElement[] {
  if (architecture === "amd64") {
    const isSecure = boot.firmware.kind === "uefi" && boot.firmware.secureBoot;
    return [element("acpi"), element("apic"), ...(isSecure ? [element("smm", { state: "on" })] : [])];
  }
  // Version 2 ends at 8 CPUs; under KVM the host's own is the only one sure to exist.
  const gic = element("gic", { version: acceleration === "kvm" ? "host" : "3" });
  // On arm64 libvirt accepts ACPI only together with UEFI; a kernel loaded directly reads the device tree.
  return boot.firmware.kind === "none" ? [gic] : [element("acpi"), gic];
}
