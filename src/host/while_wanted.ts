import { ShimError } from "../errors.ts";

export type Wanting = {
  /** What is waited for, as in "Cannot ACTION: the operation was cancelled". */
  readonly action: string;
  readonly signal?: AbortSignal | undefined;
};

/**
 * What others may wait for as well, for as long as this caller wants it. The work itself goes on.
 *
 * @throws {ShimError} CANCELLED when `signal` fires first; what the work throws
 */
export async function whileWanted<T>(work: Promise<T>, { action, signal }: Wanting): Promise<T> {
  if (signal === undefined) return await work;
  const left = Promise.withResolvers<never>();
  const leave = () =>
    left.reject(new ShimError("CANCELLED", `Cannot ${action}: the operation was cancelled`));
  if (signal.aborted) leave();
  signal.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([work, left.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
