import { describe, expect, it } from "vitest";
import { RateMeter } from "../../../src/agent/rate_meter.ts";

/** Notes a growth of so many bytes per second for a while, ten times a second. */
function rig() {
  let nowMs = 5_000_000;
  let doneBytes = 0;
  const meter = new RateMeter(() => nowMs);
  const run = (seconds: number, bytesPerSecond: number) => {
    for (let step = 0; step < seconds * 10; step += 1) {
      nowMs += 100;
      doneBytes += bytesPerSecond / 10;
      meter.note(doneBytes);
    }
  };
  return { meter, run, pass: (seconds: number) => nowMs += seconds * 1000 };
}

describe("RateMeter", () => {
  it("says nothing at first", () => {
    const { meter, run } = rig();
    expect(meter.pace(1)).toEqual({});
    run(0.4, 1000);
    expect(meter.pace(1000)).toEqual({});
  });

  it("tells the rate of the last seconds, not of all time", () => {
    const { meter, run } = rig();
    run(60, 1_000_000);
    expect(meter.pace(10_000_000)).toEqual({ bytesPerSecond: 1_000_000, remainingSeconds: 10 });
    run(6, 1000);
    expect(meter.pace(10_000)).toEqual({ bytesPerSecond: 1000, remainingSeconds: 10 });
  });

  it("falls while nothing comes, and knows no end then", () => {
    const { meter, run, pass } = rig();
    run(10, 1000);
    pass(15);
    expect(meter.pace(1000).bytesPerSecond).toBeLessThan(300);
    const { meter: still, run: stand } = rig();
    stand(10, 0);
    expect(still.pace(1000)).toEqual({ bytesPerSecond: 0 });
  });

  it("begins anew when bytes have to come again", () => {
    const { meter, run } = rig();
    run(10, 1000);
    meter.note(0);
    expect(meter.pace(1000)).toEqual({});
  });

  it("knows when it is done", () => {
    const { meter, run } = rig();
    run(10, 1000);
    expect(meter.pace(0).remainingSeconds).toBe(0);
  });
});
