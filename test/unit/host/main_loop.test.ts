import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { MainLoop } from "../../../src/host/main_loop.ts";

describe("MainLoop", () => {
  /** How many went on in each turn, of so many. */
  async function perTurn(count: number, share: () => Promise<void>, isOneByOne: boolean): Promise<number[]> {
    let turn = 0;
    let isOver = false;
    const turns = (async () => {
      for (; !isOver; turn++) await nextTurn();
    })();
    const begun: { number: number; turn: number }[] = [];
    const begin = async (number: number) => {
      await share();
      begun.push({ number, turn });
    };
    if (isOneByOne) { for (let number = 0; number < count; number++) await begin(number); }
    else await Promise.all(Array.from({ length: count }, (_, number) => begin(number)));
    isOver = true;
    await turns;
    expect(begun.map((each) => each.number)).toEqual(begun.map((_, number) => number));
    return [...Map.groupBy(begun, (each) => each.turn).values()].map((each) => each.length);
  }

  it("lets one after the other go on until the turn has lasted long enough, and the next in the turn after it", async () => {
    let nowMs = 0;
    const loop = new MainLoop({ nowMs: () => nowMs });
    const share = async () => {
      await loop.share();
      nowMs += 2;
    };
    expect(await perTurn(10, share, true)).toEqual([2, 2, 2, 2, 2]);
  });

  it("lets few of those go on in one turn that ask in one breath, in their order", async () => {
    const loop = new MainLoop({ nowMs: () => 0 });
    expect(await perTurn(100, () => loop.share(), false)).toEqual([32, 32, 32, 4]);
  });

  it("keeps nobody waiting after a pause, however long it was", async () => {
    let nowMs = 0;
    const loop = new MainLoop({ nowMs: () => nowMs });
    await loop.share();
    await nextTurn();
    nowMs = 1_000_000;
    let isBegun = false;
    void loop.share().then(() => isBegun = true);
    await Promise.resolve();
    expect(isBegun).toBe(true);
  });
});
