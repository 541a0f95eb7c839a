import { setTimeout as wait } from "node:timers/promises";
import { type ErrorCode, ShimError, toShimError } from "../errors.ts";
import type { RegistryLimits } from "./limits.ts";
import { isEarlyEnd } from "./transport_error.ts";

/** The failures that pass by themselves in moments. A 429 does not: it asks for a longer pause than ours. */
const PASSING: ReadonlySet<ErrorCode> = new Set(["REGISTRY_UNAVAILABLE", "REGISTRY_TIMEOUT"]);

export function isPassing(failure: ShimError): boolean {
  return PASSING.has(failure.code);
}

/** Bytes of a blob as one answer brings them. */
export type BlobPart = {
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Where in the blob the first chunk belongs: what was asked for, or 0 from a server that ignores Range. */
  readonly startByte: number;
  /** Nothing may come at or after this offset. */
  readonly endByte: number;
  discard(): void;
};

/**
 * How often one operation may ask again. Nothing else in this folder tries twice, so that waits never multiply.
 */
export class Attempts {
  readonly #limits: RegistryLimits;
  readonly #signal: AbortSignal | undefined;
  #total = 0;
  #withoutProgress = 0;

  constructor(limits: RegistryLimits, signal?: AbortSignal) {
    this.#limits = limits;
    this.#signal = signal;
  }

  /**
   * Resolves when it is time for the next attempt.
   *
   * @param progressed whether the failed attempt brought bytes that no other had brought
   * @throws {ShimError} the failure itself when no attempt is left; CANCELLED
   */
  async next(failure: ShimError, progressed: boolean): Promise<void> {
    this.#total += 1;
    this.#withoutProgress = progressed ? 1 : this.#withoutProgress + 1;
    const { attemptsWithoutProgress, attemptsPerBlob, backoffMs } = this.#limits;
    if (this.#withoutProgress >= attemptsWithoutProgress || this.#total >= attemptsPerBlob) throw failure;
    const longestMs = backoffMs * 2 ** (this.#withoutProgress - 1);
    try {
      await wait(
        longestMs * (0.5 + Math.random() / 2),
        undefined,
        this.#signal ? { signal: this.#signal } : {},
      );
    } catch (error) {
      throw new ShimError("CANCELLED", "Cannot try again: the operation was cancelled", { cause: error });
    }
  }
}

/** Runs `operation` until it succeeds, fails for good, or no attempt is left. It must be safe to run again. */
export async function withAttempts<T>(attempts: Attempts, operation: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await operation();
    } catch (error) {
      const failure = toShimError(error);
      if (!isPassing(failure)) throw failure;
      await attempts.next(failure, false);
    }
  }
}

/**
 * A blob's bytes in order, each once, whatever number of connections they take. What was delivered is not fetched
 * again, nor compared: whoever ingests the blob hashes all of it.
 *
 * @param first the already open answer to `open(startByte)`
 * @param startByte where in the blob to begin
 * @param open asks for the bytes from an offset to the end
 * @throws {ShimError} CONTENT_SIZE_MISMATCH when more bytes come than the blob has, or it ends early and resuming
 *   brings no more; REGISTRY_PROTOCOL when the server ignores Range a second time; what `open` throws
 */
export async function* resumeBlob(
  { first, open, startByte, sizeBytes, attempts, action }: {
    readonly first: BlobPart;
    readonly open: (offsetBytes: number) => Promise<BlobPart>;
    readonly startByte: number;
    readonly sizeBytes: number;
    readonly attempts: Attempts;
    readonly action: string;
  },
): AsyncGenerator<Uint8Array> {
  const shortBody = (cause?: unknown) =>
    new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot ${action}: received ${offsetBytes} bytes, descriptor says ${sizeBytes} bytes`,
      { cause, details: { receivedBytes: offsetBytes, expectedBytes: sizeBytes } },
    );
  let offsetBytes = startByte;
  let hasStartedOver = false;
  let part: BlobPart | undefined = first;
  for (;;) {
    const offsetBefore: number = offsetBytes;
    let failure: ShimError;
    try {
      part ??= await open(offsetBytes);
      if (part.startByte < offsetBytes) {
        // Each start from 0 costs the whole prefix again, so a server that always cuts could ask for any number of them.
        if (hasStartedOver) {
          throw new ShimError(
            "REGISTRY_PROTOCOL",
            `Cannot ${action}: the server cut it twice and does not serve ranges`,
          );
        }
        hasStartedOver = true;
      }
      let position = part.startByte;
      for await (const chunk of part.chunks) {
        const fresh = chunk.subarray(Math.min(Math.max(offsetBytes - position, 0), chunk.length));
        position += chunk.length;
        if (position > part.endByte) {
          throw new ShimError(
            "CONTENT_SIZE_MISMATCH",
            `Cannot ${action}: more bytes came than announced, the descriptor says ${sizeBytes} bytes`,
          );
        }
        if (fresh.length === 0) continue;
        offsetBytes += fresh.length;
        yield fresh;
      }
      if (offsetBytes === sizeBytes) return;
      failure = shortBody();
    } catch (error) {
      failure = toShimError(error);
      if (!isPassing(failure)) throw failure;
      // Every byte is there; what broke was only the end of the message.
      if (offsetBytes === sizeBytes) return;
      if (part !== undefined && isEarlyEnd(failure)) failure = shortBody(failure);
    } finally {
      part?.discard();
      part = undefined;
    }
    await attempts.next(failure, offsetBytes > offsetBefore);
  }
}
