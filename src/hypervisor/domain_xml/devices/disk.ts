import { diskBootOrder } from "../../boot_order.ts";
import type { DomainDefinition, DomainDisk } from "../../domain_definition.ts";
import { element, textElement, type XmlElement } from "../xml_element.ts";

/** @param labels what is said of the owner of each source */
export function diskElements({ disks, boot }: DomainDefinition, labels: XmlElement[]): XmlElement[] {
  return disks.map((disk, index) =>
    diskElement(disk, { index, bootOrder: diskBootOrder(boot, index), labels })
  );
}

function diskElement(
  disk: DomainDisk,
  { index, bootOrder, labels }: { index: number; bootOrder: number | null; labels: XmlElement[] },
): XmlElement {
  return element(
    "disk",
    { type: "file", device: "disk" },
    element("driver", {
      name: "qemu",
      type: disk.format,
      // A disk that can be written gives back to the host what its guest trims.
      ...(disk.readOnly ? {} : { discard: "unmap" }),
    }),
    element("source", { file: disk.path }, ...labels),
    backingStoreElement(disk.backing, labels),
    element("target", { dev: `vd${String.fromCharCode("a".charCodeAt(0) + index)}`, bus: "virtio" }),
    ...(disk.readOnly ? [element("readonly")] : []),
    ...(disk.serial === null ? [] : [textElement("serial", disk.serial)]),
    ...(bootOrder === null ? [] : [element("boot", { order: String(bootOrder) })]),
  );
}

/**
 * Spells out the whole chain. The empty element at its end tells libvirt that nothing more belongs to it; without one
 * libvirt would read the image's header, which the guest can write, and open whatever that names.
 *
 * @see https://libvirt.org/kbase/backing_chains.html
 */
function backingStoreElement(backing: DomainDisk["backing"], labels: XmlElement[]): XmlElement {
  if (backing === null) return element("backingStore");
  return element(
    "backingStore",
    { type: "file" },
    element("format", { type: backing.format }),
    element("source", { file: backing.path }, ...labels),
    backingStoreElement(null, labels),
  );
}
