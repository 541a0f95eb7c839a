import type { DomainDefinition } from "../../domain_definition.ts";
import { element, type XmlElement } from "../xml_element.ts";

/**
 * SCSI over virtio, on both architectures: SeaBIOS and UEFI boot from it, and kernels for guests have its driver where
 * they often lack SATA's. The controller is spelt out because libvirt's own choice for amd64 is an LSI chip that few kernels know.
 *
 * @param labels what is said of the owner of the disc's file
 */
export function cdromElements({ boot }: DomainDefinition, labels: XmlElement[]): XmlElement[] {
  if (boot.mode !== "iso") return [];
  return [
    element("controller", { type: "scsi", index: "0", model: "virtio-scsi" }),
    element(
      "disk",
      { type: "file", device: "cdrom" },
      element("driver", { name: "qemu", type: "raw" }),
      element("source", { file: boot.isoPath }, ...labels),
      element("backingStore"),
      element("target", { dev: "sda", bus: "scsi" }),
      element("readonly"),
      element("boot", { order: "1" }),
    ),
  ];
}
