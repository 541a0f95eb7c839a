import { z } from "zod";
import { prepareDocument } from "../agent/prepare_document.ts";

/** What `GET /v1/operations/ID` answers: one schema for its type and its description. Sizes are bytes. */

const bytes = z.int().min(0);

/** Absent while nothing is known. */
const pace = { bytesPerSecond: z.number().min(0).optional(), remainingSeconds: z.number().min(0).optional() };

export const operationProgress = z.strictObject({
  phase: z.string(),
  doneBytes: bytes,
  totalBytes: bytes,
  ...pace,
  layers: z.array(
    z.strictObject({
      role: z.string(),
      digest: z.string(),
      doneBytes: bytes,
      totalBytes: bytes,
      ...pace,
      wait: z.strictObject({ code: z.string(), delayMs: z.number().min(0) })
        .describe("its source failed in a way that passes, and is asked again soon").optional(),
    }),
  ),
});

export const errorDocument = z.strictObject({
  code: z.string(),
  message: z.string(),
  retryable: z.boolean(),
  details: z.record(z.string(), z.unknown()),
});

export const operationDocument = z.strictObject({
  id: z.uuid(),
  kind: z.enum(["prepare"]),
  subject: z.strictObject({
    reference: z.string(),
    machine: z.string().describe("the machine's id").optional(),
  }).describe("whose operation it is"),
  state: z.enum(["pending", "running", "succeeded", "failed", "cancelled"]),
  /** RFC 3339, UTC. */
  startedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().describe("absent until it is over").optional(),
  progress: operationProgress,
  result: prepareDocument.optional(),
  error: errorDocument.optional(),
});

export type OperationDocument = z.infer<typeof operationDocument>;
export type OperationProgress = z.infer<typeof operationProgress>;
