import { diskBootOrder } from "../boot_order.ts";
import type { DomainDefinition, DomainDisk } from "../domain_definition.ts";
import { blockArguments } from "./block.ts";
import { jsonOption } from "./option.ts";

export function diskArguments({ disks, boot }: DomainDefinition): string[] {
  return disks.flatMap((disk, index) => {
    const bootOrder = diskBootOrder(boot, index);
    return [
      ...chainArguments(disk, `disk${index}`),
      ...jsonOption("-device", {
        driver: "virtio-blk-pci",
        drive: `disk${index}`,
        ...(disk.serial === null ? {} : { serial: disk.serial }),
        ...(bootOrder === null ? {} : { bootindex: bootOrder }),
      }),
    ];
  });
}

/** From the bottom up, because a node must exist before another names it. */
function chainArguments({ path, format, readOnly, backing }: DomainDisk, nodeName: string): string[] {
  const image = { nodeName, path, format, readOnly, unmaps: !readOnly };
  if (backing === null) return blockArguments(image);
  const backingNode = `${nodeName}-backing`;
  return [
    ...blockArguments({ nodeName: backingNode, path: backing.path, format: backing.format, readOnly: true }),
    ...blockArguments({ ...image, backingNode }),
  ];
}
