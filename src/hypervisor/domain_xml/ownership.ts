import type { DomainDefinition } from "../domain_definition.ts";
import { element, type XmlElement } from "./xml_element.ts";

/**
 * Whether ownership is kept source by source instead of for the whole domain: libvirt gives QEMU the socket of its TPM by
 * the very driver that a label `none` for the domain switches off. Kernel and initramfs have no label of their own, so a
 * machine with a TPM has copies of them.
 */
export function labelsEachSource({ keepOwnership, tpm }: DomainDefinition): boolean {
  return keepOwnership && tpm;
}

/** Tells libvirt to leave the owner of one source's file alone, in a domain of ours. */
export function sourceLabelElements(definition: DomainDefinition): XmlElement[] {
  return labelsEachSource(definition) ? [keepOwner()] : [];
}

/**
 * The same in a fragment, always: the domain it will be a part of is not ours, and need not have a label for the whole.
 * libvirt refuses one domain that has both.
 */
export function fragmentLabelElements({ keepOwnership }: DomainDefinition): XmlElement[] {
  return keepOwnership ? [keepOwner()] : [];
}

function keepOwner(): XmlElement {
  return element("seclabel", { model: "dac", relabel: "no" });
}
