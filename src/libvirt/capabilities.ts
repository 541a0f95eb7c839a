import { XMLParser } from "fast-xml-parser";
import { z } from "zod";

import { ShimError } from "../errors.ts";

/** Guests of one architecture that a host can run. */
export type GuestCapabilities = {
  /** libvirt's word: `x86_64`, `aarch64`. */
  readonly architecture: string;
  /** libvirt's words for how: `qemu` emulates, `kvm` accelerates; others of other hypervisors. */
  readonly virtualizationTypes: readonly string[];
  /** Names and aliases: `pc-q35-7.2`, `q35`. */
  readonly machineTypes: readonly string[];
};

/** What libvirt can do for domains of one kind. */
export type DomainCapabilities = {
  /** `efi` where libvirt found UEFI firmware for this machine type; empty when it chooses none by itself. */
  readonly firmware: readonly string[];
  readonly maxCpus: number | null;
};

/** Elements that may stand several times, and are then gathered. */
const LISTS = ["guest", "machine", "domain", "enum", "value"];

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: "@",
  textNodeName: "text",
  parseTagValue: false,
  // No entity of a document's own is expanded
  processEntities: false,
  isArray: (name) => LISTS.includes(name),
});

const NAMED = z.union([z.string().transform((text) => ({ text })), z.object({ text: z.string() })]);

const CAPABILITIES = z.object({
  capabilities: z.object({
    guest: z.array(z.object({
      arch: z.object({
        "@name": z.string(),
        machine: z.array(NAMED).default([]),
        domain: z.array(z.object({ "@type": z.string() })).default([]),
      }),
    })).default([]),
  }),
});

const DOMAIN_CAPABILITIES = z.object({
  domainCapabilities: z.object({
    vcpu: z.object({ "@max": z.coerce.number().int() }).optional(),
    os: z.object({
      enum: z.array(z.object({ "@name": z.string(), value: z.array(z.string()).default([]) })).default([]),
    }).optional(),
  }),
});

/**
 * Reads libvirt's capabilities XML; what is not known here is passed over.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when it is not what libvirt documents
 * @see https://libvirt.org/formatcaps.html
 */
export function parseCapabilities(xml: string): GuestCapabilities[] {
  const { capabilities } = read(xml, CAPABILITIES);
  return capabilities.guest.map(({ arch }) => ({
    architecture: arch["@name"],
    virtualizationTypes: arch.domain.map((domain) => domain["@type"]),
    machineTypes: arch.machine.map((machine) => machine.text),
  }));
}

/**
 * Reads libvirt's domain capabilities XML.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when it is not what libvirt documents
 * @see https://libvirt.org/formatdomaincaps.html
 */
export function parseDomainCapabilities(xml: string): DomainCapabilities {
  const { vcpu, os } = read(xml, DOMAIN_CAPABILITIES).domainCapabilities;
  return {
    firmware: os?.enum.find((each) => each["@name"] === "firmware")?.value ?? [],
    maxCpus: vcpu?.["@max"] ?? null,
  };
}

function read<Shape>(xml: string, schema: z.ZodType<Shape>): Shape {
  try {
    return schema.parse(parser.parse(xml));
  } catch (cause) {
    throw new ShimError(
      "HYPERVISOR_UNAVAILABLE",
      "Cannot read libvirt's capabilities: their form is unknown",
      {
        cause,
      },
    );
  }
}
