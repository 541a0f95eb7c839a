import fc from "fast-check";
import { expect, it } from "vitest";
import { z } from "zod";
import { validValues } from "../../support/json_schema_values.ts";

it("draws UUIDs of every version: a description's uuid stands for them all", () => {
  const drawn = fc.sample(validValues({ type: "string", format: "uuid" }), 100);
  for (const each of drawn) expect(z.guid().safeParse(each).success).toBe(true);
  expect(drawn.some((each) => !z.uuid().safeParse(each).success)).toBe(true);
});

it("draws Base64 where a description says so", () => {
  const drawn = fc.sample(validValues({ type: "string", contentEncoding: "base64" }), 100);
  for (const each of drawn) expect(z.base64().safeParse(each).success).toBe(true);
});
