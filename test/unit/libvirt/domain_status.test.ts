import { describe, expect, it } from "vitest";

import { domainState, versionText } from "../../../src/libvirt/domain_status.ts";
import { RESULTS } from "../../../src/libvirt/reply.ts";

describe("domainState", () => {
  it("uses virsh's words in C's order", () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7].map(domainState)).toEqual([
      "no state",
      "running",
      "idle",
      "paused",
      "in shutdown",
      "shut off",
      "crashed",
      "pmsuspended",
    ]);
  });

  it("keeps a number of a newer libvirt, and the main thread takes it", () => {
    const status = {
      shutOffReason: null,
      name: "vm",
      uuid: "6695eb01-f6a4-8304-79aa-97f2502e193f",
      id: null,
      isPersistent: true,
    };
    for (const number of [8, 4711, -1]) {
      const state = domainState(number);
      expect(state).toBe(`unknown (${number})`);
      expect(RESULTS.findDomain.parse({ ...status, state })).toEqual({ ...status, state });
    }
    expect(RESULTS.findDomain.safeParse({ ...status, state: "fine" }).success).toBe(false);
  });
});

describe("versionText", () => {
  it.each([[9_000_000, "9.0.0"], [7_002_022n, "7.2.22"], [11_010_003, "11.10.3"], [2, "0.0.2"], [0, null]])(
    "reads %s as %s",
    (version, text) => expect(versionText(version)).toBe(text),
  );
});
