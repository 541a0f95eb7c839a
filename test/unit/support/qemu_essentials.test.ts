import { describe, expect, it } from "vitest";
import { renderQemuCommand } from "../../../src/hypervisor/qemu_command/command.ts";
import { MACHINE_SHAPES } from "../../golden/machine_shapes.ts";
import { qemuEssentials } from "../../support/qemu_essentials.ts";

/** A CD, and two disks of which only the first is in the order of boot. */
const shape = MACHINE_SHAPES["iso_bios_and_disk"];

describe("qemuEssentials", () => {
  const second = { path: "/second", format: "raw", readOnly: true, serial: "second", backing: null } as const;
  const argv = () => {
    if (shape === undefined) throw new Error("there is no such shape");
    return renderQemuCommand({ ...shape, disks: [...shape.disks, second] });
  };
  const swapped = (one: RegExp, other: RegExp) => {
    const words = argv();
    const [first = "", last = ""] = [one, other].map((each) => words.find((word) => each.test(word)));
    expect(first).not.toBe(last);
    return words.map((word) => word === first ? last : word === last ? first : word);
  };

  it("is the same for a command and its copy", () => {
    expect(qemuEssentials([...argv()])).toEqual(qemuEssentials(argv()));
    expect(qemuEssentials(argv()).drives).toHaveLength(3);
  });

  it.each<readonly [string, () => readonly string[]]>([
    [
      "serials that were swapped",
      () =>
        argv().map((word) =>
          word.startsWith("{")
            ? word.replace(
              /"serial":"(\w+)"/,
              (_all, serial) => `"serial":"${serial === "second" ? shape?.disks[0]?.serial : "second"}"`,
            )
            : word
        ),
    ],
    ["disks in another order", () => swapped(/"virtio-blk-pci".*"disk0"/, /"virtio-blk-pci".*"disk1"/)],
    [
      "a disk without its place in the order of boot",
      () => argv().map((word) => word.replace(/,"bootindex":2/, "")),
    ],
    [
      "another place in the order of boot",
      () => argv().map((word) => word.replace('"bootindex":1', '"bootindex":3')),
    ],
    ["a missing CD", () => argv().filter((word) => !word.includes("scsi-cd"))],
    ["another file below a disk", () => argv().map((word) => word.replace("/second", "/third"))],
    [
      "a disk that may be written",
      () =>
        argv().map((word) =>
          word.includes('"disk1"') ? word.replace('"read-only":true', '"read-only":false') : word
        ),
    ],
  ])("tells from it one with %s", (_what, spoilt) => {
    expect(spoilt()).not.toEqual(argv());
    expect(qemuEssentials(spoilt())).not.toEqual(qemuEssentials(argv()));
  });
});
