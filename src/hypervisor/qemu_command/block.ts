import type { DiskFormat } from "../../boot/prepared_boot.ts";
import { jsonOption } from "./option.ts";

/** One image file, seen through its stated format. */
type BlockImage = {
  readonly nodeName: string;
  readonly path: string;
  readonly format: DiskFormat;
  readonly readOnly: boolean;
  /** Gives back to the host what the guest trims. */
  readonly unmaps?: boolean;
  /** Node of the image below, for qcow2. */
  readonly backingNode?: string;
};

/**
 * Two nodes: the file, and on top, as `nodeName`, its format. The format is never guessed, since a guest can write any
 * header into its raw disk; a qcow2 node states its backing, with null for none, so that QEMU opens nothing that the
 * image's header names.
 *
 * @see https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html (BlockdevOptions)
 */
export function blockArguments(image: BlockImage): string[] {
  const { nodeName, path, format, readOnly, unmaps = false, backingNode = null } = image;
  const access = { "read-only": readOnly, ...(unmaps ? { discard: "unmap" } : {}) };
  const fileNode = `${nodeName}-file`;
  return [
    ...jsonOption("-blockdev", { "node-name": fileNode, driver: "file", filename: path, ...access }),
    ...jsonOption("-blockdev", {
      "node-name": nodeName,
      driver: format,
      file: fileNode,
      ...(format === "qcow2" ? { backing: backingNode } : {}),
      ...access,
    }),
  ];
}
