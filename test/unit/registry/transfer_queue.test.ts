import { describe, expect, it } from "vitest";
import { TransferQueue } from "../../../src/registry/transfer/transfer_queue.ts";
import { codeOf } from "../../support/failures.ts";

const action = "fetch";
/** Lets everything that is ready run. */
const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

/** A queue in which every transfer notes its name when it begins. */
function rig(most: number) {
  const queue = new TransferQueue(most);
  const begun: string[] = [];
  const leave = new Map<string, () => void>();
  const enter = (owner: object, name: string) => {
    void queue.enter(owner, { action }).then((end) => {
      begun.push(name);
      leave.set(name, end);
    });
  };
  const end = async (name: string) => {
    leave.get(name)?.();
    await settle();
  };
  return { queue, begun, enter, end };
}

describe("TransferQueue", () => {
  it("runs so many at once, and the next when one ends, ended twice or not", async () => {
    const { begun, enter, end } = rig(2);
    const owner = {};
    for (const name of ["a", "b", "c", "d"]) enter(owner, name);
    await settle();
    expect(begun).toEqual(["a", "b"]);
    await end("a");
    await end("a");
    expect(begun).toEqual(["a", "b", "c"]);
  });

  it("lets an image of one layer pass one of forty", async () => {
    const { begun, enter, end } = rig(2);
    const [large, small] = [{}, {}];
    for (let i = 0; i < 40; i += 1) enter(large, `large ${i}`);
    enter(small, "small 0");
    enter(small, "small 1");
    await settle();
    await end("large 0");
    expect(begun.at(-1)).toBe("small 0");
    // Both have one running: who came first goes on.
    await end("large 1");
    expect(begun.at(-1)).toBe("large 2");
    await end("small 0");
    expect(begun.at(-1)).toBe("small 1");
  });

  it("lets one that is aborted go, whether it waits or has not begun to, and gives its turn to nobody", async () => {
    const { queue, begun, enter, end } = rig(1);
    const owner = {};
    enter(owner, "a");
    await settle();
    const stop = new AbortController();
    const waiting = codeOf(queue.enter(owner, { action, signal: stop.signal }));
    enter(owner, "b");
    stop.abort();
    expect(await waiting).toBe("CANCELLED");
    expect(await codeOf(queue.enter(owner, { action, signal: stop.signal }))).toBe("CANCELLED");
    await end("a");
    expect(begun).toEqual(["a", "b"]);
  });
});
