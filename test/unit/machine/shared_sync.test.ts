import { describe, expect, it } from "vitest";
import { SharedSync } from "../../../src/machine/shared_sync.ts";

/** A sync whose ends are in the test's hands. */
function heldSync() {
  const begun: PromiseWithResolvers<void>[] = [];
  const shared = new SharedSync(() => {
    const sync = Promise.withResolvers<void>();
    begun.push(sync);
    return sync.promise;
  });
  return { begun, shared };
}

const turn = () => new Promise((resolve) => setTimeout(resolve));

describe("SharedSync", () => {
  it("serves all who ask while one is under way by one that begins after them", async () => {
    const { begun, shared } = heldSync();
    const ended: string[] = [];
    const ask = (name: string) => shared.run().then(() => ended.push(name));
    const all = [ask("first"), ask("second"), ask("third")];
    await turn();
    expect([begun.length, ended]).toEqual([1, []]);
    begun[0]?.resolve();
    await turn();
    expect([begun.length, ended]).toEqual([2, ["first"]]);
    all.push(ask("fourth"));
    begun[1]?.resolve();
    await turn();
    expect([begun.length, ended]).toEqual([3, ["first", "second", "third"]]);
    begun[2]?.resolve();
    await Promise.all(all);
    expect(ended.at(-1)).toBe("fourth");
  });

  it("tells a failure to all who were waiting, and begins anew for who asks later", async () => {
    const { begun, shared } = heldSync();
    const outcomes = Promise.allSettled([shared.run(), shared.run(), shared.run()]);
    begun[0]?.reject(new Error("EIO"));
    expect((await outcomes).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(begun).toHaveLength(1);
    const later = shared.run();
    begun[1]?.resolve();
    await later;
    expect(begun).toHaveLength(2);
  });
});
