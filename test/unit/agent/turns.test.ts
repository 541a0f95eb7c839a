import { describe, expect, it } from "vitest";
import { Turns } from "../../../src/agent/turns.ts";
import { codeOf } from "../../support/failures.ts";

describe("Turns", () => {
  it("lets as many work as it was told, the others in their order, whatever fails", async () => {
    const turns = new Turns(3);
    const order: number[] = [];
    let working = 0;
    let most = 0;
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, index) =>
      turns.take(async () => {
        order.push(index);
        most = Math.max(most, ++working);
        for (let i = 0; i < 5; i++) await Promise.resolve();
        working--;
        if (index % 4 === 0) throw new Error("failed");
        return index;
      })));
    expect([most, working]).toEqual([3, 0]);
    expect(order).toEqual(Array.from({ length: 20 }, (_, index) => index));
    expect(results.filter(({ status }) => status === "rejected")).toHaveLength(5);
  });

  it("gives each row its turn, however many wait in another", async () => {
    const turns = new Turns(1);
    const first = Promise.withResolvers<void>();
    const order: string[] = [];
    const taken = [turns.take(() => first.promise)];
    for (const row of ["a", "a", "a", "a", "b", "b", "c"]) {
      taken.push(turns.take(() => Promise.resolve(void order.push(row)), { row }));
    }
    first.resolve();
    await Promise.all(taken);
    expect(order.join("")).toBe("abcabaa");
  });

  it("leaves places to other rows, however many want to work in one", async () => {
    const turns = new Turns(4, { perRow: 2 });
    const hung = Promise.withResolvers<void>();
    let hanging = 0;
    const stuck = Array.from({ length: 10 }, () =>
      turns.take(async () => {
        hanging++;
        await hung.promise;
      }, { row: "hung" }));
    for (let index = 0; index < 5; index++) {
      await turns.take(() => Promise.resolve(), { row: "a" });
      await turns.take(() => Promise.resolve(), { row: `b${index}` });
    }
    expect(hanging).toBe(2);
    hung.resolve();
    await Promise.all(stuck);
    expect(hanging).toBe(10);
  });

  it("gives a turn that was acquired back once it is handed on", async () => {
    const turns = new Turns(1);
    const giveBack = await turns.acquire();
    let hasBegun = false;
    const next = turns.take(() => Promise.resolve(hasBegun = true));
    await Promise.resolve();
    expect(hasBegun).toBe(false);
    giveBack();
    expect(await next).toBe(true);
  });

  it("a caller that is cancelled while it waits leaves the row, and costs nobody a turn", async () => {
    const turns = new Turns(1);
    const first = Promise.withResolvers<void>();
    const working = turns.take(() => first.promise);
    const stop = new AbortController();
    let ran = false;
    const cancelled = codeOf(turns.take(() => Promise.resolve(ran = true), { signal: stop.signal }));
    const aborted = codeOf(turns.take(() => Promise.resolve(ran = true), { signal: AbortSignal.abort() }));
    const last = turns.take(() => Promise.resolve("last"));
    stop.abort();
    expect([await cancelled, await aborted, ran]).toEqual(["CANCELLED", "CANCELLED", false]);
    first.resolve();
    await working;
    expect(await last).toBe("last");
    expect(await turns.take(() => Promise.resolve("again"))).toBe("again");
  });
});
