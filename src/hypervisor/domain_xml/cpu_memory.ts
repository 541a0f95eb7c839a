import type { DomainDefinition } from "../domain_definition.ts";
import { element, textElement, type XmlElement } from "./xml_element.ts";

export function memoryElements({ memoryMib }: DomainDefinition): XmlElement[] {
  // The unit is spelt out because libvirt's default is KiB.
  return [textElement("memory", String(memoryMib), { unit: "MiB" })];
}

export function cpuElements({ cpus, acceleration }: DomainDefinition): XmlElement[] {
  return [
    textElement("vcpu", String(cpus)),
    element("cpu", { mode: acceleration === "kvm" ? "host-passthrough" : "maximum" }),
  ];
}
