import { expect, it } from "vitest";
import { KnownAcceleration } from "../../../src/agent/known_acceleration.ts";

it("is known for a second, for its architecture only", () => {
  let nowMs = 5000;
  const known = new KnownAcceleration(() => nowMs);
  expect(known.find("amd64")).toBeUndefined();
  known.keep("amd64", "kvm");
  nowMs += 999;
  expect([known.find("amd64"), known.find("arm64")]).toEqual(["kvm", undefined]);
  nowMs += 1;
  expect(known.find("amd64")).toBeUndefined();
  known.keep("amd64", "tcg");
  expect(known.find("amd64")).toBe("tcg");
});
