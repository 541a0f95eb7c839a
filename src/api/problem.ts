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

/** A problem document, with what it needs as an HTTP answer. */
export type ProblemAnswer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

/** The answer for an error. Its details may say more of it: `httpStatus`, `retryAfterSeconds`, `allow`. */
export function answerOf(error: ShimError, requestId: string): ProblemAnswer {
  const { httpStatus: special, retryAfterSeconds, allow } = error.details;
  // The code's status, save where HTTP has a word of its own for one way of being wrong.
  const status = typeof special === "number" ? special : error.httpStatus;
  const retryAfter = retryAfterSeconds ?? (status === 503 ? 1 : undefined);
  return {
    status,
    headers: {
      "content-type": PROBLEM_TYPE,
      "x-request-id": requestId,
      ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
      ...(allow === undefined ? {} : { allow: String(allow) }),
    },
    body: JSON.stringify({ ...problemOf(error, requestId), status }),
  };
}

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
