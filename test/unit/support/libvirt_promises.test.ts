import { describe, expect, it } from "vitest";
import { brokenPromises, type LibvirtMeasures } from "../../support/libvirt_promises.ts";

const holdings = { descriptors: 40, threads: 20, rssMib: 200 };
const GOOD: LibvirtMeasures = {
  held: { cycles: 10_000, early: holdings, late: holdings },
  restarted: {
    rounds: 40,
    noticedMs: { p50: 1, p99: 2, max: 3 },
    reconnectedMs: { p50: 100, p99: 4_000, max: 4_999 },
    outcomes: { done: 100, HYPERVISOR_UNAVAILABLE: 30 },
    mostQemus: 1,
    orphans: 0,
    descriptors: 40,
  },
  frozen: { samples: 9_000, delayMs: { p50: 0.1, p99: 19.9, max: 80 }, hungCallsFailed: 4, blackHoled: 8 },
};

describe("brokenPromises", () => {
  it("is empty when all are kept", () => {
    expect(brokenPromises(GOOD)).toEqual([]);
  });

  const { held, restarted, frozen } = GOOD;
  it.each<readonly [string, Partial<LibvirtMeasures>]>([
    ["descriptor", { held: { ...held, late: { ...holdings, descriptors: 41 } } }],
    ["thread", { held: { ...held, late: { ...holdings, threads: 28 } } }],
    ["memory", { held: { ...held, late: { ...holdings, rssMib: 232 } } }],
    ["connected again", {
      restarted: { ...restarted, reconnectedMs: { ...restarted.reconnectedMs, max: 5_000 } },
    }],
    ["started twice", { restarted: { ...restarted, mostQemus: 2 } }],
    ["no QEMU is left", { restarted: { ...restarted, orphans: 1 } }],
    ["operations succeed", { restarted: { ...restarted, outcomes: { HYPERVISOR_UNAVAILABLE: 1 } } }],
    ["by the daemon's absence", { restarted: { ...restarted, outcomes: { done: 1, INTERNAL: 1 } } }],
    ["main thread's delay", { frozen: { ...frozen, delayMs: { ...frozen.delayMs, p99: 20 } } }],
    ["hung call", { frozen: { ...frozen, hungCallsFailed: 3 } }],
    ["a registry was silent", { frozen: { ...frozen, blackHoled: 0 } }],
  ])("tells that one is not: %s", (words, spoilt) => {
    expect(brokenPromises({ ...GOOD, ...spoilt })).toEqual([expect.stringContaining(words)]);
  });
});
