import { z } from "zod";

import { CODES, type ErrorCode } from "../errors.ts";
import { DOMAIN_EVENTS } from "./domain_event.ts";
import { DOMAIN_STATES, SHUT_OFF_REASONS } from "./domain_status.ts";
import type { Results } from "./protocol.ts";

/** What a number that we have no word for was turned into. */
const UNKNOWN = z.templateLiteral(["unknown (", z.int(), ")"]);

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
  z.strictObject({
    kind: z.literal("event"),
    event: z.strictObject({
      name: z.string(),
      uuid: z.guid(),
      event: z.union([z.enum(DOMAIN_EVENTS), UNKNOWN]),
      detail: z.int(),
    }),
  }),
  z.strictObject({ kind: z.literal("closed"), reason: z.string() }),
]);

const STATUS = z.strictObject({
  name: z.string(),
  uuid: z.guid(),
  state: z.union([z.enum(DOMAIN_STATES), UNKNOWN]),
  shutOffReason: z.union([z.enum(SHUT_OFF_REASONS), UNKNOWN]).nullable(),
  id: z.int().nullable(),
  isPersistent: z.boolean(),
});

const DONE = z.void();

/** The check of what each method gives. */
export const RESULTS: { readonly [Name in keyof Results]: z.ZodType<Results[Name]> } = {
  open: DONE,
  openWatched: DONE,
  version: z.strictObject({
    libraryVersion: z.string().nullable(),
    hypervisorVersion: z.string().nullable(),
  }),
  capabilitiesXml: z.string(),
  domainCapabilitiesXml: z.string(),
  defineDomain: STATUS,
  findDomain: STATUS.nullable(),
  listDomains: z.array(STATUS),
  startDomain: DONE,
  shutdownDomain: DONE,
  destroyDomain: DONE,
  undefineDomain: DONE,
  domainXml: z.string(),
  keptDomainXml: z.string(),
  close: DONE,
};
