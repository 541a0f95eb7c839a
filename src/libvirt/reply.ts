import { z } from "zod";

import { CODES, type ErrorCode } from "../errors.ts";
import { DOMAIN_STATES } from "./domain_status.ts";
import type { Results } from "./protocol.ts";

const CODE = z.custom<ErrorCode>((code) => typeof code === "string" && Object.hasOwn(CODES, code));

/** What may come from the worker; `result` is checked by its method's own schema. */
export const REPLY = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("started"), threadPath: z.string() }),
  z.strictObject({ kind: z.literal("result"), id: z.number(), result: z.unknown() }),
  z.strictObject({
    kind: z.literal("failure"),
    id: z.number(),
    code: CODE,
    message: z.string(),
    details: z.looseObject({ remedy: z.string().exactOptional() }),
  }),
]);

const STATE = z.union([
  z.enum(DOMAIN_STATES),
  z.templateLiteral(["unknown (", z.int(), ")"]),
]);

const STATUS = z.strictObject({
  name: z.string(),
  uuid: z.guid(),
  state: STATE,
  id: z.int().nullable(),
  isPersistent: z.boolean(),
});

const DONE = z.void();

/** The check of what each method gives. */
export const RESULTS: { readonly [Name in keyof Results]: z.ZodType<Results[Name]> } = {
  open: DONE,
  version: z.strictObject({
    libraryVersion: z.string().nullable(),
    hypervisorVersion: z.string().nullable(),
  }),
  capabilitiesXml: z.string(),
  defineDomain: STATUS,
  findDomain: STATUS.nullable(),
  listDomains: z.array(STATUS),
  startDomain: DONE,
  shutdownDomain: DONE,
  destroyDomain: DONE,
  undefineDomain: DONE,
  domainXml: z.string(),
  close: DONE,
};
