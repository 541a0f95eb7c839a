import type { DomainDefinition } from "../domain_definition.ts";
import { element, textElement, type XmlElement } from "./xml_element.ts";

export function memoryElements({ memoryMib, hugepages }: DomainDefinition): XmlElement[] {
  return [
    // The unit is spelt out because libvirt's default is KiB.
    textElement("memory", String(memoryMib), { unit: "MiB" }),
    ...(hugepages ? [element("memoryBacking", {}, element("hugepages"))] : []),
  ];
}

export function cpuElements({ cpus, acceleration }: DomainDefinition): XmlElement[] {
  return [
    textElement("vcpu", String(cpus)),
    element("cpu", { mode: acceleration === "kvm" ? "host-passthrough" : "maximum" }),
  ];
}
