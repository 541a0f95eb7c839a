import { describe, expect, it } from "vitest";

import {
  parseWaitingCall,
  polledDescriptors,
  waitedDescriptors,
} from "../../../src/libvirt/blocked_thread.ts";

describe("parseWaitingCall", () => {
  it("reads the number and six arguments", () => {
    expect(parseWaitingCall("7 0x562f90be1e60 0x8 0xffffffff 0x0 0x0 0x1 0x7ffd 0x7f5c\n")).toEqual({
      number: 7,
      arguments: [0x562f90be1e60, 8, 0xffffffff, 0, 0, 1],
    });
  });

  it.each(["running\n", "-1 0x7ffd 0x7f5c\n", "", "7 0x1\n"])("gives null for %j", (line) => {
    expect(parseWaitingCall(line)).toBe(null);
  });
});

describe("polledDescriptors", () => {
  it("reads each struct pollfd and skips negative descriptors", () => {
    const pollfds = Buffer.alloc(24);
    for (const [index, descriptor] of [34, -1, 7].entries()) pollfds.writeInt32LE(descriptor, index * 8);
    expect(polledDescriptors(pollfds)).toEqual([34, 7]);
  });
});

describe("waitedDescriptors", () => {
  it("gives none for a thread that waits for nothing, and for an unknown architecture", () => {
    expect(waitedDescriptors("/proc/thread-self", "x64")).toEqual([]);
    expect(waitedDescriptors("/proc/thread-self", "riscv64")).toEqual([]);
  });
});
