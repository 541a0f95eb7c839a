import { ShimError } from "../errors.ts";
import { type ByteWindow, cannotBeTold, type Fields, type Part, readPart } from "./byte_window.ts";
import { containersOf } from "./container_format.ts";
import { type BareContent, recogniseBare } from "./file_system.ts";
import { type PartitionedDisk, recognisePartitions } from "./partition_table.ts";

/** What the bytes of a disk layer are. */
export type DiskContent =
  | PartitionedDisk
  | BareContent
  | ContainerFile
  /** `why` is a predicate ("has no partition table"); `isUnseen` where more of the file could tell. */
  | { readonly kind: "unknown"; readonly why: string; readonly isUnseen: boolean };

/**
 * A container format: never handed on as raw, because some reader could believe its header. `also` says what else the
 * same bytes are, to another reader.
 */
export type ContainerFile = {
  readonly kind: "container";
  readonly name: string;
  readonly also: readonly string[];
};

/** What is read of every disk: enough for the usual partition table (34 sectors), and for every signature. */
export const HEAD_BYTES = 65600 + 8;

/**
 * Reads the first 64 KiB, the last 1 KiB, and at most 128 KiB of a GPT that lies elsewhere, and decides what a disk is.
 * Never throws on any content.
 */
export async function recogniseDisk(file: ByteWindow): Promise<DiskContent> {
  const head = await readPart(file, 0, HEAD_BYTES);
  const [name, ...others] = await containersOf(file, head.fields);
  const raw = await recogniseRaw(file, head);
  if (name === undefined) return raw;
  return { kind: "container", name, also: [...others, ...namesOf(raw, head.fields)] };
}

async function recogniseRaw(
  file: ByteWindow,
  head: Part,
): Promise<Exclude<DiskContent, ContainerFile>> {
  const table = await recognisePartitions(file, head);
  if (table.kind === "partitioned") return table;
  const bare = recogniseBare(head.fields);
  if (bare) return bare;
  if (head.isCut || table.isUnseen) {
    return { kind: "unknown", why: cannotBeTold(head.fields.length), isUnseen: true };
  }
  const isZero = head.fields.isZero(0, head.fields.length);
  return { kind: "unknown", why: isZero ? "begins with zeros only" : table.why, isUnseen: false };
}

/** What a reader that knows nothing of containers would take the bytes for. */
function namesOf(raw: DiskContent, head: Fields): string[] {
  if (raw.kind === "partitioned") return [raw.table === "gpt" ? "GPT disk" : "MBR disk"];
  if (raw.kind === "file-system" || raw.kind === "volume") return [raw.name];
  return head.has(512, "EFI PART") ? ["GPT disk"] : [];
}

/**
 * Lets pass what is a disk by itself: raw bytes that no reader could take for something else.
 *
 * @throws {ShimError} FORMAT_UNSAFE when different readers would see different things; FORMAT_MISMATCH for a container
 */
export function refuseContainer(content: DiskContent, layer = "rootfs"): void {
  if (content.kind !== "container") return;
  const { name, also } = content;
  const remedy = "publish the image with a raw disk: qemu-img convert -O raw, or unpack it";
  if (also.length > 0) {
    throw new ShimError(
      "FORMAT_UNSAFE",
      `Cannot use the ${layer} layer as a disk: it is a ${name} file and at once ${
        also.join(", ")
      }, must be one of them`,
      { details: { reason: "ambiguous", formats: [name, ...also], remedy } },
    );
  }
  throw new ShimError(
    "FORMAT_MISMATCH",
    `Cannot use the ${layer} layer as a disk: it is a ${name} file, must be a raw disk image or a qcow2 file`,
    { details: { format: name, remedy } },
  );
}
