/** The binding over time, with small numbers; `deno task measure-libvirt` runs the same with large ones. */
import { describe, expect, it } from "vitest";

import { measureCycles, measureFrozen, measureRestarts } from "../support/libvirt_measures.ts";

const SLOW_MS = 240_000;

describe("libvirt over time", () => {
  it("LV06 200 times connect, define, undefine: no descriptor and no thread is left by each", async () => {
    const { early, late } = await measureCycles(200);
    // The runtime has some of its own that come and go; one left by each cycle would be 180
    expect(late.descriptors).toBeLessThan(early.descriptors + 30);
    expect(late.threads).toBeLessThan(early.threads + 8);
  }, SLOW_MS);

  it(
    "LV03 libvirtd restarted and killed under operations: connected again, no orphan, no double start",
    async () => {
      const restarted = await measureRestarts(6);
      expect(restarted).toMatchObject({ rounds: 6, mostQemus: 1, orphans: 0 });
      expect(restarted.outcomes["done"]).toBeGreaterThan(0);
      // Whatever failed, failed because the daemon was away, or because it had ended the guest meanwhile
      for (const code of Object.keys(restarted.outcomes)) {
        const expected = ["done", "HYPERVISOR_UNAVAILABLE", "DOMAIN_FAILED", "MACHINE_NOT_FOUND", "CONFLICT"];
        expect(expected).toContain(code);
      }
    },
    SLOW_MS,
  );

  it(
    "LV04 LV18 libvirtd frozen and a registry silent: every call ends, the main thread goes on",
    async () => {
      const { samples, hungCallsFailed, blackHoled } = await measureFrozen(4_000);
      expect({ hungCallsFailed, isBlackHoled: blackHoled > 0 }).toEqual({
        hungCallsFailed: 4,
        isBlackHoled: true,
      });
      expect(samples).toBeGreaterThan(100);
    },
    SLOW_MS,
  );
});
