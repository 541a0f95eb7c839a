/**
 * @module domain_xml: a domain definition as libvirt's domain XML, one file per section of the document.
 *
 * May import the definition's types. Invariants: valid against the schema of libvirt 9.0; nothing is left for libvirt
 * to probe (formats, backing chains, firmware); no `qemu:` namespace; text passes `xml_element.ts` alone.
 */
import type { DomainDefinition } from "../domain_definition.ts";
import { cpuElements, memoryElements } from "./cpu_memory.ts";
import { labelsEachSource } from "./ownership.ts";
import { devicesElement } from "./devices/devices.ts";
import { featuresElement } from "./features.ts";
import { osElement } from "./os.ts";
import { sysinfoElements } from "./sysinfo.ts";
import { element, renderXml, textElement, type XmlElement } from "./xml_element.ts";

/**
 * Gives the domain XML, ready for virDomainDefineXMLFlags. Equal definitions give equal bytes.
 *
 * @throws {ShimError} DOMAIN_INVALID for text XML cannot carry; `checkDomainDefinition` says so earlier and better
 * @see https://libvirt.org/formatdomain.html
 */
export function renderDomainXml(definition: DomainDefinition): string {
  return renderXml(element(
    "domain",
    { type: definition.acceleration === "kvm" ? "kvm" : "qemu" },
    textElement("name", definition.name),
    // The guest also finds it as SMBIOS system UUID.
    textElement("uuid", definition.uuid),
    ...memoryElements(definition),
    osElement(definition),
    ...sysinfoElements(definition),
    featuresElement(definition),
    ...cpuElements(definition),
    element("clock", { offset: "utc" }),
    textElement("on_poweroff", "destroy"),
    textElement("on_reboot", "restart"),
    textElement("on_crash", "destroy"),
    devicesElement(definition),
    ...ownershipElements(definition),
  ));
}

function ownershipElements(definition: DomainDefinition): XmlElement[] {
  return definition.keepOwnership && !labelsEachSource(definition)
    ? [element("seclabel", { type: "none", model: "dac" })]
    : [];
}
