import { afterEach, describe, expect, it, vi } from "vitest";
import { EventLog, type LoggedEvent, RESYNC } from "../../../src/api/event_log.ts";
import { keptLook } from "../../../src/api/kept_look.ts";
import { OperationTurns } from "../../../src/api/operation_turns.ts";
import { Operations, type OperationWork } from "../../../src/api/operations.ts";
import { Paced } from "../../../src/api/paced.ts";
import { streamEvents } from "../../../src/api/sse.ts";
import { codeOf } from "../../support/failures.ts";

async function turnOfLoop(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}

/** What a reader is given at once. */
async function readNow(log: EventLog, afterId: number): Promise<LoggedEvent[]> {
  const stop = new AbortController();
  const seen: LoggedEvent[] = [];
  const reading = (async () => {
    for await (const event of log.read({ afterId, signal: stop.signal })) seen.push(event);
  })();
  await turnOfLoop();
  stop.abort();
  await reading;
  return seen;
}

describe("EventLog", () => {
  it("numbers events above those of any life before, and tells who names one of those", async () => {
    const before = new EventLog(1_000);
    before.publish("a", {});
    const seen = before.lastId;
    const now = new EventLog(1_001);
    for (let index = 0; index < 10; index++) now.publish("b", { index });
    const [first, ...rest] = await readNow(now, seen);
    expect([first?.type, rest.length]).toEqual([RESYNC, 10]);
    expect(rest[0]?.id).toBeGreaterThan(seen);
    expect((await readNow(now, rest[3]?.id ?? 0)).map(({ data }) => data["index"])).toEqual([
      4,
      5,
      6,
      7,
      8,
      9,
    ]);
    // A clock that was put back.
    expect((await readNow(now, now.lastId + 5))[0]?.type).toBe(RESYNC);
  });

  it("keeps nothing of what passes, which makes nobody lose anything", async () => {
    const log = new EventLog();
    log.publish("first", {});
    const seen = log.lastId;
    for (let index = 0; index < 5000; index++) log.pass("progress", "one", { index });
    log.publish("last", {});
    expect((await readNow(log, seen)).map(({ type }) => type)).toEqual(["last"]);
    expect((await readNow(log, 0)).map(({ type }) => type)).toEqual(["first", "last"]);
  });

  it("AP15 gives a slow reader the newest of what passes, and a resync for what it lost", async () => {
    const log = new EventLog();
    const stop = new AbortController();
    const reading = log.read({ signal: stop.signal });
    const first = reading.next();
    log.publish("begin", {});
    await first;
    for (let index = 0; index < 5000; index++) log.pass("progress", "one", { index });
    expect((await reading.next()).value).toMatchObject({ type: "progress", data: { index: 4999 } });
    for (let index = 0; index < 1500; index++) log.publish("more", { index });
    expect((await reading.next()).value?.type).toBe(RESYNC);
    stop.abort();
    await reading.return(undefined);
    expect(log.readers).toBe(0);
  });
});

describe("streamEvents", () => {
  it.each(["cancels", "is gone"])("forgets a reader that %s with events it has not taken", async (how) => {
    const log = new EventLog();
    const gone = new AbortController();
    let ends = 0;
    const { body } = streamEvents((signal) => log.read({ signal }), {
      signal: gone.signal,
      onEnd: () => ends++,
    });
    const reader = body?.getReader();
    await reader?.read();
    const event = reader?.read();
    for (let index = 0; index < 10; index++) log.publish("a", { index });
    await event;
    await turnOfLoop();
    expect(log.readers).toBe(1);
    if (how === "cancels") await reader?.cancel();
    else gone.abort();
    await turnOfLoop();
    expect([log.readers, ends]).toEqual([0, 1]);
  });
});

describe("Paced", () => {
  it("tells the first at once, then now and then, and the last always", () => {
    vi.useFakeTimers();
    try {
      const told: number[] = [];
      const paced = new Paced<number>(200, (value) => told.push(value));
      for (let index = 0; index < 1000; index++) {
        paced.offer(index);
        vi.advanceTimersByTime(1);
      }
      paced.flush();
      paced.flush();
      expect(told).toEqual([0, 199, 399, 599, 799, 999]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("keptLook", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it("looks once for all who ask together and for a while after, and keeps no failure", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    let looks = 0;
    const look = keptLook(async () => {
      looks += 1;
      await turnOfLoop();
      if (looks === 1) throw new Error("failed");
      return looks;
    }, 50);
    expect(await Promise.allSettled([look(), look()])).toMatchObject([{ status: "rejected" }, {
      status: "rejected",
    }]);
    expect(await Promise.all([look(), look(), look()])).toEqual([2, 2, 2]);
    expect(await look()).toBe(2);
    vi.advanceTimersByTime(49);
    expect(await look()).toBe(2);
    vi.advanceTimersByTime(1);
    expect(await look()).toBe(3);
  });
});

describe("Operations", () => {
  const never = new Promise<never>(() => {});
  const work = (key: string, run: OperationWork["run"]): OperationWork => ({
    key,
    subject: { reference: "a.example/b:1" },
    rows: { source: "a.example", host: key },
    where: "host",
    whereNow: () => Promise.resolve("host"),
    heldBytes: 0,
    run,
  });
  const make = () => new Operations({ maxRunning: 8, maxPending: 4, events: new EventLog() });

  it("count one that was cancelled and still works beside the one that took its place, and stop both", async () => {
    const operations = make();
    const stopped: string[] = [];
    const begun = { first: Promise.withResolvers<void>(), second: Promise.withResolvers<void>() };
    const slow = (name: "first" | "second"): OperationWork => ({
      ...work("same", async ({ signal }) => {
        begun[name].resolve();
        await new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve()));
        await new Promise((resolve) => setTimeout(resolve, 30));
        stopped.push(name);
        throw signal?.reason;
      }),
      // In one row the second would wait for the first.
      rows: { source: "a.example", host: name },
    });
    const first = operations.start(slow("first"));
    await begun.first.promise;
    operations.cancel(first.id);
    const second = operations.start(slow("second"));
    await begun.second.promise;
    expect(second.id).not.toBe(first.id);
    expect(operations.counts()).toEqual({ running: 2, pending: 0 });
    await operations.close(5000);
    expect(stopped).toEqual(["first", "second"]);
    expect(operations.counts()).toEqual({ running: 0, pending: 0 });
    expect(await codeOf(second.result)).toBe("CANCELLED");
  });

  it("go on here when all they need was brought while they waited for their turn at a registry", async () => {
    const operations = new Operations({ maxRunning: 4, maxPending: 20, events: new EventLog() });
    const bringing = Promise.withResolvers<void>();
    let isHere = false;
    const held = Promise.withResolvers<never>();
    held.promise.catch(() => {});
    const wish = (key: string, run: OperationWork["run"]): OperationWork => ({
      ...work(key, run),
      rows: { source: "a.example", host: key },
      where: "source",
      whereNow: () => Promise.resolve(isHere ? "host" : "source"),
    });
    // One place of four: who waits for it waits in the row of that registry.
    operations.start(wish("brings", async () => {
      await bringing.promise;
      isHere = true;
      throw new Error("over");
    }));
    const begun: string[] = [];
    for (const key of ["b", "c", "d"]) {
      operations.start(wish(key, () => {
        begun.push(key);
        return held.promise;
      }));
    }
    await turnOfLoop();
    expect(begun).toEqual([]);
    bringing.resolve();
    // All of them: none keeps the registry's one place.
    await vi.waitFor(() => expect(begun).toEqual(["b", "c", "d"]));
    held.reject(new Error("over"));
    await operations.close(1000);
  });

  it("do not begin when they are cancelled before they come to it", async () => {
    const operations = make();
    let isBegun = false;
    const { id, result } = operations.start(work("early", async () => {
      isBegun = true;
      return await never;
    }));
    operations.cancel(id);
    expect(await codeOf(result)).toBe("CANCELLED");
    expect(isBegun).toBe(false);
  });

  it("are left when they do not obey in time", async () => {
    const operations = make();
    const begun = Promise.withResolvers<void>();
    operations.start(work("hung", () => {
      begun.resolve();
      return never;
    }));
    await begun.promise;
    await operations.close(50);
    expect(operations.counts().running).toBe(1);
  });
});

describe("OperationTurns", () => {
  it("let one row have a quarter of the places on this host, however many may work at registries", async () => {
    const turns = new OperationTurns({ maxRunning: 32, maxPending: 4 });
    const signal = new AbortController().signal;
    const held = Array.from({ length: 8 }, () => turns.admit("host", { source: "a.example", host: "held" }));
    for (const each of held) void each.wait("host", signal);
    const other = turns.admit("host", { source: "a.example", host: "other" });
    void other.wait("host", signal);
    await turnOfLoop();
    expect(other.isWaiting).toBe(false);
    expect(held.filter(({ isWaiting }) => !isWaiting)).toHaveLength(1);
  });

  it("leave places here to those who ask no registry, also when one finds out late that it has to", async () => {
    const turns = new OperationTurns({ maxRunning: 4, maxPending: 2 });
    const signal = new AbortController().signal;
    const rows = { source: "hung.example", host: "a" };
    const hung = Array.from({ length: 5 }, () => turns.admit("source", rows));
    void hung[0]?.wait("source", signal);
    await turnOfLoop();
    for (const each of hung.slice(1)) void each.wait("source", signal);
    await turnOfLoop();
    expect(hung.map(({ isWaiting }) => isWaiting)).toEqual([false, true, true, true, true]);
    const late = turns.admit("host", rows);
    await late.wait("host", signal);
    void late.wait("source", signal);
    await turnOfLoop();
    const warm = turns.admit("host", { ...rows, host: "b" });
    await warm.wait("host", signal);
    expect([late.isWaiting, warm.isWaiting]).toEqual([true, false]);
    // Six are there: two more than work at once.
    expect(await codeOf(Promise.resolve().then(() => turns.admit("source", rows)))).toBe("BUSY");
    hung[0]?.end();
    await turnOfLoop();
    expect(hung[1]?.isWaiting).toBe(false);
  });
});
