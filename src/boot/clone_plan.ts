import { ShimError } from "../errors.ts";
import type { DiskFormat } from "./prepared_boot.ts";
import { MAX_VIRTUAL_SIZE_BYTES } from "./qcow2_header.ts";

const SECTOR_BYTES = 512;

/** How a machine's disk is made from the image's; `convert` is a copy into another format. */
export type CloneStep = {
  readonly how: "reflink" | "overlay" | "copy" | "convert";
  readonly format: DiskFormat;
};

export type CloneWish = {
  readonly clone: "auto" | "reflink" | "overlay" | "copy";
  readonly diskFormat: "auto" | DiskFormat;
};

type Choice = CloneStep["how"] | "reflink, or copy" | "reflink, or overlay";

/**
 * What each wish means, by the format of the image's disk; null is a refusal.
 *
 * An overlay is made at once and takes no space, but needs the image as long as it lives; a reflink needs a file system
 * that shares blocks, and is the machine's own from then on; a copy always works.
 */
const CHOICES: Readonly<
  Record<
    CloneWish["clone"],
    Readonly<Record<CloneWish["diskFormat"], readonly [raw: Choice | null, qcow2: Choice | null]>>
  >
> = {
  auto: {
    auto: ["reflink, or overlay", "overlay"],
    raw: ["reflink, or copy", "convert"],
    qcow2: ["overlay", "overlay"],
  },
  reflink: {
    auto: ["reflink, or copy", "reflink, or copy"],
    raw: ["reflink, or copy", null],
    qcow2: [null, "reflink, or copy"],
  },
  overlay: { auto: ["overlay", "overlay"], raw: [null, null], qcow2: ["overlay", "overlay"] },
  copy: { auto: ["copy", "copy"], raw: ["copy", "convert"], qcow2: ["convert", "copy"] },
};

/**
 * The steps to try for a machine's disk, the best first: the next one is for when the file system cannot do the one
 * before. Only `reflink` can meet that.
 *
 * @throws {ShimError} REQUEST_INVALID when the wishes contradict each other or the image's format
 */
export function planClone({ clone, diskFormat }: CloneWish, baseFormat: DiskFormat): readonly CloneStep[] {
  const choice = CHOICES[clone][diskFormat][baseFormat === "raw" ? 0 : 1];
  if (choice === null) throw refused({ clone, diskFormat }, baseFormat);
  const reflink = { how: "reflink", format: baseFormat } as const;
  if (choice === "reflink, or copy") return [reflink, { how: "copy", format: baseFormat }];
  if (choice === "reflink, or overlay") return [reflink, { how: "overlay", format: "qcow2" }];
  if (choice === "overlay") return [{ how: choice, format: "qcow2" }];
  if (choice === "copy") return [{ how: choice, format: baseFormat }];
  return [{ how: choice, format: baseFormat === "raw" ? "qcow2" : "raw" }];
}

function refused({ clone, diskFormat }: CloneWish, baseFormat: DiskFormat): ShimError {
  const why = clone === "overlay"
    ? "an overlay is always qcow2"
    : `a reflink has the format of the image's disk, which is ${baseFormat}`;
  return new ShimError(
    "REQUEST_INVALID",
    `Cannot make a ${diskFormat} disk by ${clone}: ${why}`,
    { details: { clone, diskFormat, baseFormat, remedy: "leave one of the two to us, or ask for a copy" } },
  );
}

/**
 * How large the guest sees its disk: as wished, to the byte; else as the image has it, in whole sectors, because QEMU
 * gives a raw file that ends within one the rest of it, too.
 *
 * @throws {ShimError} REQUEST_INVALID unless the wish is whole sectors; LIMIT_EXCEEDED when the disk would shrink, or be
 *   larger than any file
 */
export function virtualSizeFor(wishBytes: number | null, baseBytes: number): number {
  const leastBytes = Math.ceil(baseBytes / SECTOR_BYTES) * SECTOR_BYTES;
  if (wishBytes === null) return leastBytes;
  const action = `Cannot make a disk of ${wishBytes} bytes`;
  if (wishBytes % SECTOR_BYTES !== 0) {
    throw new ShimError("REQUEST_INVALID", `${action}: must be a multiple of ${SECTOR_BYTES}`);
  }
  if (wishBytes < leastBytes) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `${action}: the image's disk has ${baseBytes} bytes, and a disk never shrinks`,
      { details: { remedy: `ask for at least ${leastBytes} bytes` } },
    );
  }
  if (wishBytes > MAX_VIRTUAL_SIZE_BYTES) {
    throw new ShimError("LIMIT_EXCEEDED", `${action}: limit is ${MAX_VIRTUAL_SIZE_BYTES} bytes`);
  }
  return wishBytes;
}
