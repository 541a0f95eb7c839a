import { randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { expect, it } from "vitest";
import { Secret } from "../../../../src/registry/auth/secret.ts";

it("AU19 a secret shows itself to nobody but who asks for it by name", () => {
  const word = randomBytes(12).toString("hex");
  const secret = new Secret(word);
  const shown = [
    `${secret}`,
    String(secret),
    "" + secret,
    JSON.stringify({ secret, list: [secret] }),
    inspect(secret),
    inspect({ nested: { secret } }, { depth: 9, showHidden: true }),
    JSON.stringify(Object.entries(secret)),
    JSON.stringify(Object.getOwnPropertyNames(secret)),
    new Error("x", { cause: secret }).stack,
  ];
  expect(shown.join("\n")).not.toContain(word);
  expect(shown[0]).toBe("[secret]");
  expect(secret.reveal()).toBe(word);
  expect([secret.equals(new Secret(word)), secret.equals(new Secret("x"))]).toEqual([true, false]);
});
