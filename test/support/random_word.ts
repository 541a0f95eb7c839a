import { randomBytes } from "node:crypto";

/** A word that nothing but this run can know. */
export function randomWord(): string {
  return `w${randomBytes(6).toString("hex")}`;
}
