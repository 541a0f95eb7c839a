import { type ErrorCode, type ErrorDetails, ShimError } from "../../src/errors.ts";

/** All that a caller can tell of a failure. */
export type Refusal = { readonly code: ErrorCode; readonly message: string; readonly details: ErrorDetails };

/** The ShimError a promise must reject with; anything else fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<ShimError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ShimError) return error;
    throw error;
  }
  throw new Error("Expected a failure, but the promise was fulfilled");
}

export async function codeOf(promise: Promise<unknown>): Promise<ErrorCode> {
  return (await failureOf(promise)).code;
}

/** What a promise must reject with, whole. */
export async function rejectionOf(promise: Promise<unknown>): Promise<Refusal> {
  return refusalIn(await failureOf(promise));
}

/** What an action is refused with, whole; an action that succeeds, or fails without a code, fails the test. */
export function refusalOf(action: () => unknown): Refusal {
  let result: unknown;
  try {
    result = action();
  } catch (error) {
    if (error instanceof ShimError) return refusalIn(error);
    throw error;
  }
  throw new Error(`Expected a refusal, got ${JSON.stringify(result)}`);
}

function refusalIn({ code, message, details }: ShimError): Refusal {
  return { code, message, details };
}
