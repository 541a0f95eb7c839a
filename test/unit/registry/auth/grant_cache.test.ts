import { afterEach, describe, expect, it, vi } from "vitest";
import { ShimError } from "../../../../src/errors.ts";
import { type Grant, GrantCache } from "../../../../src/registry/auth/grant_cache.ts";
import { Secret } from "../../../../src/registry/auth/secret.ts";
import { codeOf } from "../../../support/failures.ts";

/** Gives a new grant each time it is asked, and counts. */
function issuer(lifetimeMs?: number) {
  const issued: Grant[] = [];
  const obtain = async (): Promise<Grant> => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const grant: Grant = {
      authorization: new Secret(`Bearer ${issued.length}`),
      credential: undefined,
      ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
      renew: obtain,
    };
    issued.push(grant);
    return grant;
  };
  return { issued, obtain };
}

const ask = (obtain: () => Promise<Grant | undefined>, refused?: Grant) => ({
  refused,
  obtain,
  signal: undefined,
});

describe("GrantCache", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it("AU12 two hundred that were refused get one new grant, and so do those who come late", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer();
    const first = await cache.renew("a", ask(obtain));
    const all = await Promise.all(Array.from({ length: 200 }, () => cache.renew("a", ask(obtain, first))));
    expect(issued).toHaveLength(2);
    expect(new Set(all)).toEqual(new Set([issued[1]]));
    expect(await cache.renew("a", ask(obtain, first))).toBe(issued[1]);
    expect(issued).toHaveLength(2);
  });

  it("AU12 a grant whose time is over is renewed once, before anything is sent", async () => {
    let nowMs = 1_000_000;
    const cache = new GrantCache(() => nowMs);
    const { issued, obtain } = issuer(60_000);
    await cache.renew("a", ask(obtain));
    nowMs += 53_000;
    expect(await cache.current("a")).toBe(issued[0]);
    nowMs += 2_000;
    const all = await Promise.all(Array.from({ length: 200 }, () => cache.current("a")));
    expect(issued).toHaveLength(2);
    expect(new Set(all)).toEqual(new Set([issued[1]]));
  });

  it("AU14 the wall clock may jump by a day either way", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer(60_000);
    await cache.renew("a", ask(obtain));
    vi.useFakeTimers({ toFake: ["Date"] });
    const wallMs = Date.now();
    for (const jumpMs of [86_400_000, -86_400_000]) {
      vi.setSystemTime(wallMs + jumpMs);
      expect(await cache.current("a")).toBe(issued[0]);
    }
    expect(issued).toHaveLength(1);
  });

  it("AU16 keys have their own grants", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer();
    await cache.renew("a", ask(obtain));
    await cache.renew("b", ask(obtain));
    expect(await cache.current("a")).toBe(issued[0]);
    expect(await cache.current("b")).toBe(issued[1]);
    expect(await cache.current("c")).toBeUndefined();
  });

  it("a failure is everybody's who waits, and is not kept", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer();
    let failures = 0;
    const fail = () => {
      failures += 1;
      return Promise.reject(new ShimError("REGISTRY_UNAVAILABLE", "Cannot test"));
    };
    const all = await Promise.all([1, 2, 3].map(() => codeOf(cache.renew("a", ask(fail)))));
    expect(all).toEqual(Array(3).fill("REGISTRY_UNAVAILABLE"));
    expect(failures).toBe(1);
    expect(await cache.renew("a", ask(obtain))).toBe(issued[0]);
  });

  it("who does not wait any longer leaves, and the others get theirs", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer();
    const leaving = new AbortController();
    const left = codeOf(cache.renew("a", { refused: undefined, obtain, signal: leaving.signal }));
    const stayed = cache.renew("a", ask(obtain));
    leaving.abort();
    expect(await left).toBe("CANCELLED");
    expect(await stayed).toBe(issued[0]);
    expect(issued).toHaveLength(1);
  });

  it("what was refused at once is forgotten, unless there is another by then", async () => {
    const cache = new GrantCache();
    const { issued, obtain } = issuer();
    const first = await cache.renew("a", ask(obtain));
    await cache.renew("a", ask(obtain, first));
    cache.forget("a", issued[0]!);
    expect(await cache.current("a")).toBe(issued[1]);
    cache.forget("a", issued[1]!);
    expect(await cache.current("a")).toBeUndefined();
  });
});
