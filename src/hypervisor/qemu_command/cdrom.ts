import type { DomainDefinition } from "../domain_definition.ts";
import { blockArguments } from "./block.ts";
import { jsonOption } from "./option.ts";

/** As in the domain XML: a drive on a virtio SCSI controller. */
export function cdromArguments({ boot }: DomainDefinition): string[] {
  if (boot.mode !== "iso") return [];
  return [
    ...blockArguments({ nodeName: "cdrom", path: boot.isoPath, format: "raw", readOnly: true }),
    ...jsonOption("-device", { driver: "virtio-scsi-pci", id: "scsi" }),
    ...jsonOption("-device", { driver: "scsi-cd", bus: "scsi.0", drive: "cdrom", bootindex: 1 }),
  ];
}
