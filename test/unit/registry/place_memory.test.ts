import { describe, expect, it } from "vitest";
import { PlaceMemory } from "../../../src/registry/mirror/place_memory.ts";

describe("PlaceMemory", () => {
  it("leaves a place alone for a minute, and asks it again then", () => {
    let nowMs = 5;
    const memory = new PlaceMemory(() => nowMs);
    expect(memory.isAsked("a", "x")).toBe(true);
    memory.rest("a");
    expect([memory.isAsked("a", "x"), memory.isAsked("b", "x")]).toEqual([false, true]);
    nowMs += 59_999;
    expect(memory.isAsked("a", "x")).toBe(false);
    nowMs += 1;
    expect(memory.isAsked("a", "x")).toBe(true);
  });

  it("doubts a place for one content only, for ten minutes", () => {
    let nowMs = 0;
    const memory = new PlaceMemory(() => nowMs);
    memory.doubt("a", "x");
    expect([memory.isAsked("a", "x"), memory.isAsked("a", "y"), memory.isAsked("b", "x")]).toEqual([
      false,
      true,
      true,
    ]);
    nowMs = 600_000;
    expect(memory.isAsked("a", "x")).toBe(true);
  });

  it("doubts all who served, once", () => {
    const memory = new PlaceMemory();
    expect(memory.doubtServers("x")).toBe(false);
    memory.served("a", "x");
    memory.served("b", "x");
    memory.served("c", "y");
    expect(memory.doubtServers("x")).toBe(true);
    expect(["a", "b", "c"].map((place) => memory.isAsked(place, "x"))).toEqual([false, false, true]);
    expect(memory.doubtServers("x")).toBe(false);
    expect(memory.isAsked("c", "y")).toBe(true);
  });

  it("forgets the oldest when there is too much", () => {
    const memory = new PlaceMemory();
    for (let count = 0; count <= 10_000; count += 1) memory.doubt("a", String(count));
    expect(memory.isAsked("a", "0")).toBe(true);
    expect(memory.isAsked("a", "1")).toBe(false);
    expect(memory.isAsked("a", "10000")).toBe(false);
  });
});
