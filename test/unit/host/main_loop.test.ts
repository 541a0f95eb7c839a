import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { openKernelLook } from "../../../src/host/kernel_look.ts";
import { MainLoop } from "../../../src/host/main_loop.ts";

/** How many went on between two looks at the kernel, of so many. */
async function perLook(
  count: number,
  { servesOthers = true, isOneByOne, takesMs, steps }: {
    readonly servesOthers?: boolean;
    readonly isOneByOne: boolean;
    readonly takesMs: number;
    readonly steps?: number;
  },
): Promise<number[]> {
  let nowMs = 1000;
  let looks = 0;
  const look = async () => {
    await nextTurn();
    looks += 1;
  };
  const loop = new MainLoop({ nowMs: () => nowMs, look });
  if (servesOthers) loop.serveOthers();
  const begun: { number: number; looks: number }[] = [];
  const begin = async (number: number) => {
    await loop.share(steps);
    nowMs += takesMs;
    begun.push({ number, looks });
  };
  if (isOneByOne) { for (let number = 0; number < count; number++) await begin(number); }
  else await Promise.all(Array.from({ length: count }, (_, number) => begin(number)));
  expect(begun.map(({ number }) => number)).toEqual(begun.map((_, number) => number));
  return [...Map.groupBy(begun, (each) => each.looks).values()].map((each) => each.length);
}

describe("MainLoop", () => {
  it("lets one after the other go on for four milliseconds, then looks", async () => {
    expect(await perLook(10, { isOneByOne: true, takesMs: 2 })).toEqual([2, 2, 2, 2, 2]);
  });

  it("lets few of those go on that ask in one breath, in their order", async () => {
    expect(await perLook(600, { isOneByOne: false, takesMs: 0 })).toEqual([256, 256, 88]);
    expect(await perLook(10, { isOneByOne: false, takesMs: 0, steps: 64 })).toEqual([4, 4, 2]);
  });

  it("looks seldom while nobody else is served", async () => {
    expect(await perLook(60, { servesOthers: false, isOneByOne: true, takesMs: 2 })).toEqual([25, 25, 10]);
    const together = { servesOthers: false, isOneByOne: false, takesMs: 0 };
    expect(await perLook(4000, together)).toEqual([3200, 800]);
  });

  it("looks again for who asks after a look that failed", async () => {
    let looks = 0;
    const look = () => ++looks === 1 ? Promise.reject(new Error("no")) : Promise.resolve();
    const loop = new MainLoop({ look });
    await expect(loop.share()).rejects.toThrow("no");
    await loop.share();
    expect(looks).toBe(2);
  });

  it("has a socket served while many are at work", async () => {
    const server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const socket = connect(address.port, "127.0.0.1");
    await once(socket, "connect");
    const loop = new MainLoop();
    loop.serveOthers(await openKernelLook());
    const [workers, steps] = [50, 20];
    let taken = 0;
    const work = Array.from({ length: workers }, async () => {
      for (let step = 0; step < steps; step++) {
        await loop.share(64);
        const endMs = performance.now() + 1;
        while (performance.now() < endMs);
        taken += 1;
      }
    });
    socket.write("x");
    await once(socket, "data");
    expect(taken).toBeLessThan(workers * steps / 2);
    await Promise.all(work);
    socket.destroy();
    server.close();
  });
});
