import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { judgeDisk } from "../../../src/boot/judge_disk.ts";
import { failureOf } from "../../support/failures.ts";
import { backing, gptWith, HOSTILE_DISKS } from "../../support/hostile_disks.ts";
import { leastTimeMs } from "../../support/least_time.ts";
import { qcow2File } from "../../support/qcow2_bytes.ts";
import { watched } from "../../support/watched_window.ts";

const MIB = 1024 * 1024;
const ROOTFS = { mediaType: "application/vnd.ironcore.image.rootfs" };

describe("judgeDisk", () => {
  it.each(HOSTILE_DISKS)("refuses %s", async (_name, made, code, reason) => {
    const disk = made instanceof Uint8Array ? made : qcow2File(made);
    const { window, readBytes } = watched(windowOf(disk));
    const failure = await failureOf(judgeDisk(window, ROOTFS));
    expect([failure.code, failure.details["reason"]]).toEqual([code, reason]);
    expect(readBytes()).toBeLessThan(MIB);
    expect(await leastTimeMs(10, () => failureOf(judgeDisk(windowOf(disk), ROOTFS)))).toBeLessThan(10);
  });

  it("takes the file that all of the hostile qcow2 files were made from", async () => {
    expect((await judgeDisk(windowOf(qcow2File()), ROOTFS)).format).toBe("qcow2");
    expect((await judgeDisk(windowOf(gptWith({})), ROOTFS)).format).toBe("raw");
  });

  it("says of a refused qcow2 file what is wrong with it and what to do", async () => {
    const { message, details } = await failureOf(
      judgeDisk(windowOf(qcow2File(backing("/etc/shadow"))), ROOTFS),
    );
    expect({ message, details }).toEqual({
      message: "Cannot use the qcow2 disk: it names a backing file, must stand alone",
      details: {
        reason: "backing",
        remedy: "publish it anew: qemu-img convert -O qcow2, or -O raw",
      },
    });
  });
});
