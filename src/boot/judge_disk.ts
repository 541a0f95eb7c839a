import { ShimError } from "../errors.ts";
import { type ByteWindow, cannotBeTold, readPart } from "./byte_window.ts";
import { type DiskContent, HEAD_BYTES, recogniseDisk, refuseContainer } from "./disk_content.ts";
import type { DiskFormat } from "./prepared_boot.ts";
import { readQcow2Header } from "./qcow2_header.ts";
import { qcow2Window } from "./qcow2_window.ts";

/** The format every later reader is told, the size the guest sees, and what the disk (inside a qcow2) is. */
export type JudgedDisk = {
  readonly format: DiskFormat;
  readonly virtualSizeBytes: number;
  readonly content: DiskContent;
};

/**
 * Goes up whenever the gate, or a recogniser it asks, or the one of packed disks comes to judge some bytes otherwise:
 * verdicts that are kept beside blobs count for one edition only.
 */
export const GATE_EDITION = 2;

/**
 * The format decision, made once for every reader: a disk layer is raw bytes, or a qcow2 file that passes the gate, or
 * refused. A header that some program could believe never reaches one.
 *
 * On a window that ends early the answer is provisional: what cannot be seen is not refused, and an unknown format is
 * given as raw with unknown content. Only the answer on a whole, verified file may decide how a file is opened.
 *
 * @param options.mediaType one that states a format ("…+qcow2", "….raw") must state the right one
 * @param options.layer what messages call it
 * @throws {ShimError} FORMAT_MISMATCH for other container formats, for what is too small for a disk, and for another
 *   format than stated; FORMAT_UNSAFE when two readers would see two things; FORMAT_UNSAFE, LIMIT_EXCEEDED as
 *   `readQcow2Header`
 */
export async function judgeDisk(
  file: ByteWindow,
  { mediaType, layer = "rootfs" }: { mediaType: string; layer?: string },
): Promise<JudgedDisk> {
  if (file.sizeBytes < 512) {
    throw mismatch(layer, `it has ${file.sizeBytes} bytes, must have one sector of 512 bytes at least`);
  }
  const content = await recogniseDisk(file);
  const isQcow2 = content.kind === "container" && content.name === "qcow2" && content.also.length === 0;
  if (!isQcow2) refuseContainer(content, layer);
  const format = isQcow2 ? "qcow2" : "raw";
  const stated = statedFormat(mediaType);
  const isUnseen = content.kind === "unknown" && content.isUnseen;
  if (stated !== undefined && stated !== format && !isUnseen) {
    throw mismatch(layer, `its media type "${mediaType}" says ${stated}, it is ${format}`);
  }
  if (isQcow2) return await judgeQcow2(file, layer);
  return { format, virtualSizeBytes: file.sizeBytes, content };
}

async function judgeQcow2(file: ByteWindow, layer: string): Promise<JudgedDisk> {
  const head = await readPart(file, 0, HEAD_BYTES);
  const cut = `is a qcow2 disk, and what it holds ${cannotBeTold(head.fields.length)}`;
  const header = readQcow2Header(head, file.sizeBytes);
  if (!header) {
    return {
      format: "raw",
      virtualSizeBytes: file.sizeBytes,
      content: { kind: "unknown", why: cut, isUnseen: true },
    };
  }
  const disk = qcow2Window(file, header, { cut });
  const content = await recogniseDisk(disk);
  refuseContainer(content, `disk inside the qcow2 file of the ${layer}`);
  const why = content.kind === "unknown" && content.isUnseen ? disk.obstacle() : undefined;
  return {
    format: "qcow2",
    virtualSizeBytes: header.virtualSizeBytes,
    content: why === undefined ? content : { kind: "unknown", why, isUnseen: why === cut },
  };
}

/** The last words of a media type may name the format: `…rootfs+qcow2`, `….raw`. */
function statedFormat(mediaType: string): DiskFormat | undefined {
  const words = mediaType.toLowerCase().split(/[+./-]/);
  return (["raw", "qcow2"] as const).find((format) => words.includes(format));
}

function mismatch(layer: string, why: string): ShimError {
  return new ShimError("FORMAT_MISMATCH", `Cannot use the ${layer} layer as a disk: ${why}`, {
    details: { remedy: "publish the image with a raw disk, or a qcow2 file that stands alone" },
  });
}
