import { ShimError, toShimError } from "../../errors.ts";
import { type Attempts, isPassing } from "../resume.ts";
import { isEarlyEnd } from "../transport_error.ts";
import type { BlobPart, ByteRange } from "./blob_part.ts";
import { RATE_LIMIT } from "./minimum_rate.ts";

/** What only trickled must have brought more than this to count as progress. */
const MUCH_BYTES = 1024 * 1024;

export type BlobResumptionOptions = {
  readonly open: (range: ByteRange) => Promise<BlobPart>;
  readonly startByte: number;
  readonly sizeBytes: number;
  readonly attempts: Attempts;
  readonly action: string;
};

/**
 * A blob's bytes in order, each once, whatever number of connections they take. What was delivered is not fetched
 * again, nor compared: whoever ingests the blob hashes all of it.
 */
export class BlobResumption {
  /** Where in the blob the next byte belongs. Whoever delivers bytes from elsewhere moves it on. */
  offsetBytes: number;
  readonly #options: BlobResumptionOptions;
  /** Where the last failure was: all that came since is progress, whoever brought it. */
  #failedAtByte: number;
  #hasStartedOver = false;

  constructor(options: BlobResumptionOptions) {
    this.#options = options;
    this.offsetBytes = options.startByte;
    this.#failedAtByte = options.startByte;
  }

  /**
   * Reads on to `endByte`; further, when the server does not serve ranges and gives all of the blob.
   *
   * @param first an already open answer to that
   * @throws {ShimError} CONTENT_SIZE_MISMATCH when more bytes come than the blob has, or it ends early and resuming
   *   brings no more; REGISTRY_PROTOCOL when the server ignores Range a second time; what `open` throws
   */
  async *read(endByte: number, first?: BlobPart): AsyncGenerator<Uint8Array> {
    const { open, attempts } = this.#options;
    let end = endByte;
    let part = first;
    for (;;) {
      let failure: ShimError;
      try {
        part ??= await open({ startByte: this.offsetBytes, endByte: end });
        if (part.startByte < this.offsetBytes) this.#startOver();
        end = Math.max(end, part.endByte);
        yield* this.#take(part);
        if (this.offsetBytes === end) return;
        failure = this.#shortBody();
      } catch (error) {
        failure = toShimError(error);
        if (!isPassing(failure)) throw failure;
        // Every byte is there; what broke was only the end of the message.
        if (this.offsetBytes === end) return;
        if (part !== undefined && isEarlyEnd(failure)) failure = this.#shortBody(failure);
      } finally {
        part?.discard();
        part = undefined;
      }
      const leastBytes = failure.details["limit"] === RATE_LIMIT ? MUCH_BYTES : 0;
      const freshBytes = this.offsetBytes - this.#failedAtByte;
      this.#failedAtByte = this.offsetBytes;
      await attempts.next(failure, freshBytes > leastBytes);
    }
  }

  async *#take(part: BlobPart): AsyncGenerator<Uint8Array> {
    let position = part.startByte;
    for await (const chunk of part.chunks) {
      const known = Math.min(Math.max(this.offsetBytes - position, 0), chunk.length);
      position += chunk.length;
      if (position > part.endByte) {
        const { action, sizeBytes } = this.#options;
        throw new ShimError(
          "CONTENT_SIZE_MISMATCH",
          `Cannot ${action}: more bytes came than announced, the descriptor says ${sizeBytes} bytes`,
        );
      }
      if (known === chunk.length) continue;
      this.offsetBytes += chunk.length - known;
      yield chunk.subarray(known);
    }
  }

  /** Each start from 0 costs the whole prefix again, so a server that always cuts could ask for any number of them. */
  #startOver(): void {
    if (this.#hasStartedOver) {
      throw new ShimError(
        "REGISTRY_PROTOCOL",
        `Cannot ${this.#options.action}: the server cut it twice and does not serve ranges`,
      );
    }
    this.#hasStartedOver = true;
  }

  #shortBody(cause?: unknown): ShimError {
    const { action, sizeBytes } = this.#options;
    return new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot ${action}: received ${this.offsetBytes} bytes, descriptor says ${sizeBytes} bytes`,
      { cause, details: { receivedBytes: this.offsetBytes, expectedBytes: sizeBytes } },
    );
  }
}
