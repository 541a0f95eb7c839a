import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { KnownAcceleration } from "../../../src/agent/known_acceleration.ts";
import type { AccelerationVerdict } from "../../../src/qemu/acceleration_probe.ts";

const KVM: AccelerationVerdict = { acceleration: "kvm", evidence: "seen" };
const TCG: AccelerationVerdict = { acceleration: "tcg", evidence: "not seen" };

/** A look that ends when the test says so, or when nobody waits. */
function heldLook() {
  const held = Promise.withResolvers<AccelerationVerdict>();
  const begun: AbortSignal[] = [];
  const look = (signal: AbortSignal) => {
    begun.push(signal);
    signal.addEventListener("abort", () => held.reject(new Error("given up")));
    return held.promise;
  };
  return { ...held, begun, look };
}

describe("what is known of acceleration", () => {
  it("is kept for a second, for its architecture only", async () => {
    let nowMs = 5000;
    const known = new KnownAcceleration(() => nowMs);
    expect(await known.learn("amd64", () => Promise.resolve(KVM))).toBe(KVM);
    nowMs += 999;
    expect(await known.learn("amd64", () => Promise.resolve(TCG))).toBe(KVM);
    expect(await known.learn("arm64", () => Promise.resolve(TCG))).toBe(TCG);
    nowMs += 1;
    expect(await known.learn("amd64", () => Promise.resolve(TCG))).toBe(TCG);
  });

  it("is looked at once for all who ask meanwhile, however long that takes", async () => {
    let nowMs = 5000;
    const known = new KnownAcceleration(() => nowMs);
    const { look, begun, resolve } = heldLook();
    const first = known.learn("amd64", look);
    nowMs += 60_000;
    const others = Array.from({ length: 199 }, () => known.learn("amd64", look));
    resolve(TCG);
    expect(new Set(await Promise.all([first, ...others]))).toEqual(new Set([TCG]));
    expect(begun).toHaveLength(1);
  });

  it("is still found when some no longer wait, not when nobody does", async () => {
    const known = new KnownAcceleration();
    const { look, begun, resolve } = heldLook();
    const [one, two] = [new AbortController(), new AbortController()];
    const leaving = known.learn("amd64", look, one.signal);
    const staying = known.learn("amd64", look, two.signal);
    one.abort();
    await expect(leaving).rejects.toMatchObject({ code: "CANCELLED" });
    expect(begun[0]?.aborted).toBe(false);
    two.abort();
    await expect(staying).rejects.toMatchObject({ code: "CANCELLED" });
    expect(begun[0]?.aborted).toBe(true);
    // Nothing of it is left for who comes next.
    resolve(KVM);
    expect(await known.learn("amd64", () => Promise.resolve(TCG))).toBe(TCG);
  });

  it("is over when the last who waited is told that it was given up", async () => {
    const known = new KnownAcceleration();
    let isOver = false;
    const look = async (signal: AbortSignal): Promise<AccelerationVerdict> => {
      await once(signal, "abort");
      await delay(20);
      isOver = true;
      throw new Error("given up");
    };
    const one = new AbortController();
    const leaving = known.learn("amd64", look, one.signal);
    one.abort();
    await expect(leaving).rejects.toMatchObject({ code: "CANCELLED" });
    expect(isOver).toBe(true);
  });

  it("is not kept when the look failed", async () => {
    const known = new KnownAcceleration();
    const failure = new Error("no QEMU");
    const failing = () => known.learn("amd64", () => Promise.reject(failure));
    expect(await Promise.allSettled([failing(), failing()])).toEqual([
      { status: "rejected", reason: failure },
      { status: "rejected", reason: failure },
    ]);
    expect(await known.learn("amd64", () => Promise.resolve(KVM))).toBe(KVM);
  });
});
