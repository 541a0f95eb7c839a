import { describe, expect, it } from "vitest";
import { LaneCount } from "../../../src/registry/transfer/lane_count.ts";

const MIB = 1024 * 1024;

/** Runs a blob over connections of a given pace, by a clock of its own. */
function simulate(options: {
  readonly most?: number;
  readonly seconds: number;
  /** Bytes per millisecond that so many connections bring together. */
  readonly network: (lanes: number, nowMs: number) => number;
  /** The most that the reader takes. */
  readonly reader?: number;
}): { readonly lanes: LaneCount; readonly seen: number[] } {
  const { most = 12, seconds, network, reader = Infinity } = options;
  let nowMs = 1_000_000;
  const lanes = new LaneCount(most, () => nowMs);
  const seen: number[] = [];
  for (let step = 0; step < seconds * 100; step += 1) {
    const offered = network(lanes.lanes, nowMs - 1_000_000);
    const rate = Math.min(offered, reader);
    nowMs += 10;
    lanes.received(rate * 10);
    lanes.waited(offered < reader ? 10 * (1 - offered / reader) : 0);
    lanes.decide();
    if (seen.at(-1) !== lanes.lanes) seen.push(lanes.lanes);
  }
  return { lanes, seen };
}

const perConnection = (mibPerSecond: number) => (lanes: number) => lanes * mibPerSecond * MIB / 1000;

describe("LaneCount", () => {
  it("doubles while each connection is slow, within two seconds, up to the most there may be", () => {
    expect(simulate({ seconds: 2, network: perConnection(20) }).seen).toEqual([1, 2, 4, 8, 12]);
    expect(simulate({ seconds: 2, network: perConnection(20), most: 1 }).seen).toEqual([1]);
    expect(simulate({ seconds: 60, network: perConnection(0.2) }).lanes.lanes).toBe(12);
  });

  it("stays with one where the reader is what is slow", () => {
    expect(simulate({ seconds: 10, network: perConnection(1000), reader: 500 * MIB / 1000 }).seen).toEqual([
      1,
    ]);
  });

  it("goes back to one where more bring no more, and tries again ever more rarely", () => {
    const { seen, lanes } = simulate({ seconds: 60, network: () => 50 * MIB / 1000 });
    expect(new Set(seen)).toEqual(new Set([1, 2]));
    // 1, 2, 4, 8, 16 … seconds apart.
    expect(seen.filter((each) => each === 2).length).toBeLessThanOrEqual(7);
    expect(lanes.worthwhileBytes).toBeGreaterThanOrEqual(0);
  });

  it("keeps what paid, and drops what did not", () => {
    const shared = (lanes: number) => Math.min(lanes, 4.2) * 20 * MIB / 1000;
    expect(simulate({ seconds: 1.9, network: shared }).seen).toEqual([1, 2, 4, 8, 4]);
  });

  it("finds out anew when the network gets better", () => {
    const { lanes } = simulate({
      seconds: 60,
      network: (count, nowMs) => (nowMs < 5000 ? 20 : 20 * count) * MIB / 1000,
    });
    expect(lanes.lanes).toBe(12);
  });

  it("goes on with one after a failure, and asks for little at first", () => {
    const { lanes } = simulate({ seconds: 2, network: perConnection(20) });
    lanes.failed();
    expect([lanes.lanes, lanes.worthwhileBytes]).toEqual([1, 0]);
  });

  it("asks for as much again as came at first, then for what comes until it thinks again", () => {
    let nowMs = 1_000_000;
    const lanes = new LaneCount(12, () => nowMs);
    const receive = (bytes: number, forMs: number) => {
      nowMs += forMs;
      lanes.received(bytes);
      lanes.decide();
    };
    expect(lanes.worthwhileBytes).toBe(0);
    receive(2 * MIB, 10);
    expect(lanes.worthwhileBytes).toBe(2 * MIB);
    receive(2 * MIB, 140);
    // What comes at this pace in the 50 ms that are left.
    expect(lanes.worthwhileBytes).toBe(Math.floor(4 * MIB / 3));
    receive(36 * MIB, 50);
    expect(lanes.worthwhileBytes).toBe(40 * MIB);
    receive(10 * MIB, 20);
    expect(lanes.worthwhileBytes).toBe(40 * MIB);
  });

  it("leaves one connection alone for as long as more turned out not to help", () => {
    let nowMs = 1_000_000;
    const lanes = new LaneCount(12, () => nowMs);
    const starve = () => {
      nowMs += 200;
      lanes.received(20 * MIB);
      lanes.waited(200);
      lanes.decide();
    };
    starve();
    expect(lanes.lanes).toBe(2);
    lanes.received(2 * MIB); // the new ones have begun
    starve();
    expect([lanes.lanes, lanes.worthwhileBytes]).toEqual([1, 100 * MIB]);
  });
});
