import { afterEach, describe, expect, it, vi } from "vitest";
import { HostPauses } from "../../../src/registry/pacing/host_pauses.ts";
import { retryAfterMs } from "../../../src/registry/pacing/retry_after.ts";

afterEach(() => void vi.useRealTimers());

function answer(headers: Readonly<Record<string, readonly string[]>>) {
  return { values: (name: string) => headers[name] ?? [] };
}

describe("retryAfterMs", () => {
  it.each<[readonly string[], number | undefined]>([
    [["7"], 7000],
    [["0"], 0],
    [["60"], 60_000],
    [["61"], 60_000],
    [["1000000000"], 60_000],
    [["99999999999999999999999999"], 60_000],
    [["-1"], undefined],
    [["1e9"], undefined],
    [["0x10"], undefined],
    [[" "], undefined],
    [[""], undefined],
    [["7 s"], undefined],
    [["7", "7"], undefined],
    [[], undefined],
  ])("RP34 %j is %s", (values, expected) => {
    expect(retryAfterMs(answer({ "retry-after": values }))).toBe(expected);
  });

  it.each([
    ["Wed, 21 Oct 2015 07:28:07 GMT", 7000],
    ["Wed, 21 Oct 2015 07:28:00 GMT", 0],
    ["Wed, 21 Oct 2015 07:00:00 GMT", 0],
    ["Wed, 21 Oct 2099 07:28:00 GMT", 60_000],
  ])("RP34 AU14 the date %s counts from the server's own time, whatever ours is", (value, expected) => {
    const date = ["Wed, 21 Oct 2015 07:28:00 GMT"];
    expect(retryAfterMs(answer({ "retry-after": [value], date }))).toBe(expected);
  });

  it("RP34 a date counts from our time when the server does not tell its own", () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.UTC(2015, 9, 21, 7, 28, 0) });
    const value = ["Wed, 21 Oct 2015 07:28:30 GMT"];
    expect(retryAfterMs(answer({ "retry-after": value }))).toBe(30_000);
    expect(retryAfterMs(answer({ "retry-after": value, date: ["yesterday"] }))).toBe(30_000);
  });
});

describe("HostPauses", () => {
  it("keeps one origin's pause from all others, and the longest of several", async () => {
    const pauses = new HostPauses();
    pauses.pause("https://a", 60_000);
    pauses.pause("https://a", 1);
    expect(pauses.remainingMs("https://a")).toBeGreaterThan(50_000);
    expect(pauses.remainingMs("https://a:444")).toBe(0);
    await pauses.wait("https://b");
  });

  it("lets a waiting one go when it is aborted", async () => {
    const pauses = new HostPauses();
    pauses.pause("https://a", 60_000);
    const stop = new AbortController();
    const waiting = pauses.wait("https://a", stop.signal);
    stop.abort();
    await expect(waiting).rejects.toThrow();
  });

  it.each([-1, 1])("AU14 does not care for a wall clock that jumps by %i day", async (days) => {
    const pauses = new HostPauses();
    pauses.pause("https://a", 50);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + days * 86_400_000 });
    const startedMs = performance.now();
    expect(pauses.remainingMs("https://a")).toBeGreaterThan(0);
    await pauses.wait("https://a");
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(30);
  });
});
