import { type ErrorCode, type ErrorDetails, ShimError } from "../../src/errors.ts";

export type Refusal = { readonly code: ErrorCode; readonly message: string; readonly details: ErrorDetails };

/** What an action is refused with, whole; an action that succeeds, or fails without a code, fails the test. */
export function refusalOf(action: () => unknown): Refusal {
  let result: unknown;
  try {
    result = action();
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    return { code: error.code, message: error.message, details: error.details };
  }
  throw new Error(`Expected a refusal, got ${JSON.stringify(result)}`);
}
