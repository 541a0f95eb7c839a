import { z } from "zod";
import { type ShimError } from "../errors.ts";

/** RFC 9457, with our code beside it. */
export const problemDocument = z.strictObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  retryable: z.boolean(),
  details: z.record(z.string(), z.unknown()),
});
export type ProblemDocument = z.infer<typeof problemDocument>;

export const PROBLEM_TYPE = "application/problem+json";

/**
 * An error as a caller sees it. What we did not expect gives away nothing of ourselves: the log has the rest, by the
 * request's id.
 */
export function problemOf(error: ShimError, requestId: string): ProblemDocument {
  const isInternal = error.code === "INTERNAL";
  return {
    type: "about:blank",
    title: error.code.toLowerCase().replaceAll("_", " "),
    status: error.httpStatus,
    detail: isInternal ? `unexpected failure in request ${requestId}; the log says more` : error.message,
    code: error.code,
    retryable: error.retryable,
    details: isInternal ? { requestId } : { ...error.details, requestId },
  };
}
