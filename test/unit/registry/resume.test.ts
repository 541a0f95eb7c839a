import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { DEFAULT_LIMITS } from "../../../src/registry/limits.ts";
import { Attempts, withAttempts } from "../../../src/registry/resume.ts";

const LIMITS = { ...DEFAULT_LIMITS, backoffMs: 1 };
const passing = new ShimError("REGISTRY_UNAVAILABLE", "Cannot connect");

describe("Attempts", () => {
  it("ends with the failure itself after 3 in a row without progress", async () => {
    const attempts = new Attempts(LIMITS);
    await attempts.next(passing, false);
    await attempts.next(passing, false);
    await expect(attempts.next(passing, false)).rejects.toBe(passing);
  });

  it("counts anew after progress, up to the total", async () => {
    const attempts = new Attempts({ ...LIMITS, attemptsPerBlob: 20 });
    for (let i = 1; i < 20; i += 1) await attempts.next(passing, i % 2 === 0);
    await expect(attempts.next(passing, true)).rejects.toBe(passing);
  });

  it("waits longer each time, between half and all of the doubled backoff", async () => {
    const attempts = new Attempts({ ...LIMITS, backoffMs: 60, attemptsWithoutProgress: 4 });
    for (const longestMs of [60, 120, 240]) {
      const startedAt = performance.now();
      await attempts.next(passing, false);
      // A millisecond for the timer's rounding.
      expect(performance.now() - startedAt).toBeGreaterThanOrEqual(longestMs / 2 - 1);
    }
  });
});

describe("withAttempts", () => {
  it("gives the first success", async () => {
    let calls = 0;
    const operation = () => {
      calls += 1;
      return calls < 3 ? Promise.reject(passing) : Promise.resolve(calls);
    };
    expect(await withAttempts(new Attempts(LIMITS), operation)).toBe(3);
  });

  it.each(["REGISTRY_NOT_FOUND", "REGISTRY_DENIED", "REGISTRY_TLS", "CANCELLED"] as const)(
    "RP36 leaves %s at once",
    async (code) => {
      let calls = 0;
      const failure = new ShimError(code, "Cannot");
      const operation = () => {
        calls += 1;
        return Promise.reject(failure);
      };
      await expect(withAttempts(new Attempts(LIMITS), operation)).rejects.toBe(failure);
      expect(calls).toBe(1);
    },
  );
});
