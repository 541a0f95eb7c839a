import { z } from "zod";
import { prepareDocument } from "../agent/prepare_document.ts";

/** What `GET /v1/operations/ID` answers: one schema for its type and its description. Sizes are bytes. */

const bytes = z.int().min(0);

const progress = z.strictObject({
  phase: z.string(),
  doneBytes: bytes,
  totalBytes: bytes,
  layers: z.array(
    z.strictObject({ role: z.string(), digest: z.string(), doneBytes: bytes, totalBytes: bytes }),
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
  state: z.enum(["pending", "running", "succeeded", "failed", "cancelled"]),
  /** RFC 3339, UTC. */
  startedAt: z.iso.datetime(),
  progress,
  result: prepareDocument.optional(),
  error: errorDocument.optional(),
});

export type OperationDocument = z.infer<typeof operationDocument>;
export type OperationProgress = z.infer<typeof progress>;
