import type { DomainDefinition } from "../../domain_definition.ts";
import { sourceLabelElements } from "../ownership.ts";
import { element, type XmlElement } from "../xml_element.ts";
import { cdromElements } from "./cdrom.ts";
import { consoleElements } from "./console.ts";
import { diskElements } from "./disk.ts";
import { networkElements } from "./network.ts";

/** No emulator: libvirt picks the one of its own capabilities. No graphics, no input beyond what libvirt adds. */
export function devicesElement(definition: DomainDefinition): XmlElement {
  const labels = sourceLabelElements(definition);
  return element(
    "devices",
    {},
    ...cdromElements(definition, labels),
    ...diskElements(definition, labels),
    // libvirt would add a USB controller, which nothing here is plugged into.
    element("controller", { type: "usb", model: "none" }),
    ...networkElements(definition),
    ...consoleElements(definition),
    guestAgentElement(),
    ...tpmElements(definition),
    element("memballoon", { model: "virtio" }),
    element("rng", { model: "virtio" }, element("backend", { model: "builtin" })),
  );
}

/** libvirt starts swtpm and keeps its state, under the domain's UUID. */
function tpmElements({ tpm, architecture }: DomainDefinition): XmlElement[] {
  if (!tpm) return [];
  // The model each architecture's firmware has a driver for.
  const model = architecture === "amd64" ? "tpm-crb" : "tpm-tis";
  return [element("tpm", { model }, element("backend", { type: "emulator", version: "2.0" }))];
}

/** The socket's path is libvirt's to choose. */
function guestAgentElement(): XmlElement {
  return element(
    "channel",
    { type: "unix" },
    element("target", { type: "virtio", name: "org.qemu.guest_agent.0" }),
  );
}
