import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Overlay,
  OVERLAY_HEAD_BYTES,
  readDiskLinks,
  renderOverlay,
} from "../../../src/boot/qcow2_overlay.ts";
import { MAX_VIRTUAL_SIZE_BYTES } from "../../../src/boot/qcow2_header.ts";
import { refusalOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";

const overlay = (): Overlay => ({
  backingPath: `/srv/${randomWord()}.raw`,
  backingFormat: "raw",
  virtualSizeBytes: 2 ** 30,
});

/** The first bytes of an overlay's file, with some of them changed. */
function headOf(made: Overlay, change: (view: DataView, bytes: Uint8Array) => void = () => {}): Uint8Array {
  const head = new Uint8Array(OVERLAY_HEAD_BYTES);
  for (const { offsetBytes, bytes } of renderOverlay(made).parts) {
    if (offsetBytes < head.length) head.set(bytes, offsetBytes);
  }
  change(new DataView(head.buffer), head);
  return head;
}

const linksOf = ({ backingPath: path, backingFormat: format, virtualSizeBytes }: Overlay) => ({
  backing: { path, format },
  virtualSizeBytes,
});

describe("an overlay's header", () => {
  it("HD15: says base, its format and size, and is read back as it was made", () => {
    const path = fc.string({ unit: "grapheme", maxLength: 100 }).filter((text) =>
      !text.includes("\0") && text.isWellFormed()
    );
    fc.assert(
      fc.property(
        path,
        fc.constantFrom("raw" as const, "qcow2" as const),
        fc.integer({ min: 1, max: MAX_VIRTUAL_SIZE_BYTES / 512 }),
        (name, backingFormat, sectors) => {
          const made = { backingPath: `/${name}`, backingFormat, virtualSizeBytes: sectors * 512 };
          expect(readDiskLinks(headOf(made))).toEqual(linksOf(made));
        },
      ),
    );
  });

  it.each<[string, Partial<Overlay>]>([
    ["a relative base", { backingPath: "base.raw" }],
    ["a protocol", { backingPath: "nbd:localhost:1" }],
    ["an option", { backingPath: "-x" }],
    ["a NUL in its base's path", { backingPath: "/a\0b" }],
    ["a base's path of 1,024 bytes", { backingPath: "/".padEnd(1024, "a") }],
    ["no bytes", { virtualSizeBytes: 0 }],
    ["part of a sector", { virtualSizeBytes: 513 }],
    ["more than any file", { virtualSizeBytes: MAX_VIRTUAL_SIZE_BYTES + 512 }],
  ])("is not made with %s", (_what, change) => {
    expect(refusalOf(() => renderOverlay({ ...overlay(), ...change })).code).toBe("REQUEST_INVALID");
  });

  it.each<[string, (view: DataView, bytes: Uint8Array) => void]>([
    ["no qcow2", (view) => view.setUint8(0, 0)],
    ["version 4", (view) => view.setUint32(4, 4)],
    ["a base's name behind the header", (view) => view.setBigUint64(8, 2n ** 40n)],
    ["a base's name of 1,024 bytes", (view) => view.setUint32(16, 1024)],
    ["a base's name of 2^32 - 1 bytes", (view) => view.setUint32(16, 2 ** 32 - 1)],
    ["a base's name that is no UTF-8", (view, bytes) => bytes.fill(0xff, Number(view.getBigUint64(8)), 200)],
    ["encryption", (view) => view.setUint32(32, 2)],
    ["an external data file", (view) => view.setUint32(76, 4)],
    ["a corrupt mark", (view) => view.setUint32(76, 2)],
    ["an unknown feature", (view) => view.setUint32(72, 1)],
    ["raw external data", (view) => view.setUint32(92, 2)],
    ["a header of 4 GiB", (view) => view.setUint32(100, 2 ** 32 - 1)],
    ["no format of its base", (view) => view.setUint32(112, 0)],
    ["another format of its base", (_view, bytes) => bytes.set(new TextEncoder().encode("nbd"), 120)],
    ["the name of a data file", (view) => view.setUint32(112, 0x44415441)],
    ["extensions without end", (view) => view.setUint32(116, 2 ** 32 - 16)],
  ])("HD15: is CONTENT_CORRUPT with %s", (_what, change) => {
    expect(refusalOf(() => readDiskLinks(headOf(overlay(), change))).code).toBe("CONTENT_CORRUPT");
  });

  it("HD11: is CONTENT_CORRUPT when it is cut off anywhere", () => {
    const made = overlay();
    const sizeBytes = renderOverlay(made).parts[0]?.bytes.length ?? 0;
    for (let length = 0; length < sizeBytes; length++) {
      expect(refusalOf(() => readDiskLinks(headOf(made).subarray(0, length))).code).toBe("CONTENT_CORRUPT");
    }
    expect(readDiskLinks(headOf(made).subarray(0, sizeBytes))).toEqual(linksOf(made));
  });

  it("HD15: tells a disk that stands alone", () => {
    const made = overlay();
    expect(readDiskLinks(headOf(made, (view) => view.setBigUint64(8, 0n)))).toEqual({
      backing: null,
      virtualSizeBytes: made.virtualSizeBytes,
    });
  });

  it("is what it was after a guest's QEMU was killed, or a backup noted what changed", () => {
    const made = overlay();
    expect(readDiskLinks(headOf(made, (view) => view.setUint32(76, 1)))).toEqual(linksOf(made));
  });
});
