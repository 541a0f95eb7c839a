import { describe, expect, it } from "vitest";
import { probeFirmware } from "../../../src/qemu/probe_firmware.ts";

describe("probeFirmware", () => {
  it("is what QEMU takes as firmware: multiples of 64 KiB on amd64, whole instructions on arm64", () => {
    const [amd64, arm64] = [probeFirmware("amd64"), probeFirmware("arm64")];
    expect([amd64.bytes.length, amd64.expectedExitCode]).toEqual([65536, 85]);
    expect([arm64.bytes.length, arm64.expectedExitCode]).toEqual([28, 0]);
    // The reset vector jumps back to the program: 0xfff2 - 0x52 = 0xffa0.
    expect([...amd64.bytes.subarray(0xfff0, 0xfff2)]).toEqual([0xeb, 0xae]);
  });
});
