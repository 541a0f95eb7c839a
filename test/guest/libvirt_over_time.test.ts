/** The binding over time, with small numbers; `deno task measure-libvirt` runs the same with large ones. */
import { describe, expect, it } from "vitest";

import { measureCycles, measureFrozen, measureRestarts } from "../support/libvirt_measures.ts";
import { brokenPromises, LIBVIRT_PROMISES, type LibvirtMeasures } from "../support/libvirt_promises.ts";

const SLOW_MS = 240_000;
/** What a machine that is busy with other tests may add to a delay that the binding does not cause. */
const NOISE = 5;

/** Measures that break nothing, for the parts that a test does not measure. */
const none = { p50: 0, p99: 0, max: 0 };
const holdings = { descriptors: 0, threads: 0, rssMib: 0 };
const QUIET: LibvirtMeasures = {
  held: { cycles: 0, early: holdings, late: holdings },
  restarted: {
    rounds: 0,
    noticedMs: none,
    reconnectedMs: none,
    outcomes: { done: 1 },
    mostQemus: 0,
    orphans: 0,
    descriptors: 0,
  },
  frozen: { samples: 0, delayMs: none, hungCallsFailed: 4, blackHoled: 1 },
};

describe("libvirt over time", () => {
  it("LV06 200 times connect, define, undefine: no descriptor and no thread is left by each", async () => {
    const held = await measureCycles(200);
    console.log("connect, define, undefine:", JSON.stringify(held));
    const { early, late } = held;
    // The runtime has some of its own that come and go; one left by each cycle would be 180
    expect(late.descriptors).toBeLessThan(early.descriptors + 30);
    expect(late.threads).toBeLessThan(early.threads + 8);
  }, SLOW_MS);

  it(
    "LV03 libvirtd restarted and killed under operations: connected again in 5 s, no orphan, no double start",
    async () => {
      const restarted = await measureRestarts(6);
      console.log("libvirtd killed and restarted:", JSON.stringify(restarted));
      expect(restarted.rounds).toBe(6);
      expect(brokenPromises({ ...QUIET, restarted })).toEqual([]);
    },
    SLOW_MS,
  );

  it(
    "LV04 LV18 libvirtd frozen and a registry silent: every call ends, the main thread goes on",
    async () => {
      const frozen = await measureFrozen(4_000);
      console.log("libvirtd frozen, registry silent:", JSON.stringify(frozen));
      const { samples, delayMs } = frozen;
      expect(samples).toBeGreaterThan(100);
      expect(delayMs.p99).toBeLessThan(LIBVIRT_PROMISES.mainDelayMs * NOISE);
      expect(brokenPromises({ ...QUIET, frozen: { ...frozen, delayMs: none } })).toEqual([]);
    },
    SLOW_MS,
  );
});
