import { describe, expect, it } from "vitest";
import { planClone, virtualSizeFor } from "../../../src/boot/clone_plan.ts";
import { refusalOf } from "../../support/failures.ts";

const CLONES = ["auto", "reflink", "overlay", "copy"] as const;
const FORMATS = ["auto", "raw", "qcow2"] as const;
const plan = (clone: typeof CLONES[number], diskFormat: typeof FORMATS[number], base: "raw" | "qcow2") => {
  try {
    return planClone({ clone, diskFormat }, base).map(({ how, format }) => `${how} ${format}`).join(", ");
  } catch {
    return "refused";
  }
};

describe("planClone", () => {
  it("DC18: every wish, for either format of the image's disk", () => {
    const table = CLONES.flatMap((clone) =>
      FORMATS.map((
        format,
      ) => [`${clone} ${format}`, plan(clone, format, "raw"), plan(clone, format, "qcow2")])
    );
    expect(table).toEqual([
      ["auto auto", "reflink raw, overlay qcow2", "overlay qcow2"],
      ["auto raw", "reflink raw, copy raw", "convert raw"],
      ["auto qcow2", "overlay qcow2", "overlay qcow2"],
      ["reflink auto", "reflink raw, copy raw", "reflink qcow2, copy qcow2"],
      ["reflink raw", "reflink raw, copy raw", "refused"],
      ["reflink qcow2", "refused", "reflink qcow2, copy qcow2"],
      ["overlay auto", "overlay qcow2", "overlay qcow2"],
      ["overlay raw", "refused", "refused"],
      ["overlay qcow2", "overlay qcow2", "overlay qcow2"],
      ["copy auto", "copy raw", "copy qcow2"],
      ["copy raw", "copy raw", "convert raw"],
      ["copy qcow2", "convert qcow2", "copy qcow2"],
    ]);
  });

  it("says why a wish cannot be", () => {
    expect(refusalOf(() => planClone({ clone: "overlay", diskFormat: "raw" }, "raw"))).toMatchObject({
      code: "REQUEST_INVALID",
      message: "Cannot make a raw disk by overlay: an overlay is always qcow2",
    });
    expect(refusalOf(() => planClone({ clone: "reflink", diskFormat: "qcow2" }, "raw")).message).toBe(
      "Cannot make a qcow2 disk by reflink: a reflink has the format of the image's disk, which is raw",
    );
  });
});

describe("virtualSizeFor", () => {
  it.each([
    [null, 1024, 1024],
    [null, 1025, 1536],
    [1536, 1025, 1536],
    [2 ** 44, 1, 2 ** 44],
  ])("DC24: a wish of %s for a disk of %s gives %s", (wish, base, size) => {
    expect(virtualSizeFor(wish, base)).toBe(size);
  });

  it.each([
    [1024, 1025, "LIMIT_EXCEEDED", "ask for at least 1536 bytes"],
    [0, 512, "LIMIT_EXCEEDED", "ask for at least 512 bytes"],
    [1537, 1025, "REQUEST_INVALID", undefined],
    [2 ** 44 + 512, 1, "LIMIT_EXCEEDED", undefined],
  ])("DC24, HD21: a wish of %s for a disk of %s is refused as %s", (wish, base, code, remedy) => {
    const refusal = refusalOf(() => virtualSizeFor(wish, base));
    expect([refusal.code, refusal.details?.["remedy"]]).toEqual([code, remedy]);
  });
});
