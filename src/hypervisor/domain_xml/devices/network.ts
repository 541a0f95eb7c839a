import type { DomainDefinition } from "../../domain_definition.ts";
import { element, type XmlElement } from "../xml_element.ts";

export function networkElements({ network }: DomainDefinition): XmlElement[] {
  if (network.kind === "none") return [];
  return [element("interface", { type: network.kind }, ...interfaceElements(network))];
}

function interfaceElements(network: Exclude<DomainDefinition["network"], { kind: "none" }>): XmlElement[] {
  // No option ROM: nothing here boots from the network, and the ROM's file is a package of its own.
  const device = [element("model", { type: "virtio" }), element("rom", { enabled: "no" })];
  const address = element("mac", { address: network.macAddress });
  if (network.kind === "user") return [address, ...device];
  return [address, element("source", { [network.kind]: network.name }), ...device];
}
