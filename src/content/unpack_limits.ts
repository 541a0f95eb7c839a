import { performance } from "node:perf_hooks";
import { ShimError } from "../errors.ts";

/** What unpacking one layer may cost this host, whatever the layer says. */
export type UnpackLimits = {
  /** All that comes out of the layer, zeros included. */
  readonly maxBytes: number;
  /** Content for each byte of the layer. Zeros do not count: they become holes, and good disks are full of them. */
  readonly maxRatio: number;
  /** Up to so much content the ratio means nothing. */
  readonly ratioFromBytes: number;
  readonly timeoutMs: number;
  /** Space on the file system that is left to others. */
  readonly reserveBytes: number;
};

const MIB = 1024 * 1024;

export const UNPACK_LIMITS: UnpackLimits = {
  maxBytes: MIB * MIB,
  // deflate comes to 1032, zstd to 32,768; no disk's content does.
  maxRatio: 1000,
  ratioFromBytes: 16 * MIB,
  // At the 100 MB/s of a slow disk: 180 GB of content.
  timeoutMs: 30 * 60 * 1000,
  reserveBytes: 64 * MIB,
};

export type UnpackMeterOptions = {
  readonly limits: UnpackLimits;
  /** Bytes free on the file system when the work begins. */
  readonly availableBytes: number;
  readonly signal?: AbortSignal | undefined;
};

/** Counts what goes in and comes out, and ends the work at the first limit that is met. */
export class UnpackMeter {
  readonly #options: UnpackMeterOptions;
  readonly #startMs = performance.now();
  #takenBytes = 0;
  #decodedBytes = 0;
  #contentBytes = 0;

  constructor(options: UnpackMeterOptions) {
    this.#options = options;
  }

  /** @throws {ShimError} CANCELLED; LIMIT_EXCEEDED when it takes too long */
  take(sizeBytes: number): void {
    this.#takenBytes += sizeBytes;
    this.#checkTime();
  }

  /** @throws {ShimError} as {@link take}; LIMIT_EXCEEDED over the largest size */
  decode(sizeBytes: number): void {
    const { maxBytes } = this.#options.limits;
    this.#decodedBytes += sizeBytes;
    if (this.#decodedBytes > maxBytes) {
      throw exceeded(`more than ${maxBytes} bytes come out of it, which is the limit`);
    }
    this.#checkTime();
  }

  /**
   * To be told before the bytes are written.
   *
   * @throws {ShimError} LIMIT_EXCEEDED over the ratio; NO_SPACE
   */
  write(contentBytes: number): void {
    const { limits: { maxRatio, ratioFromBytes, reserveBytes }, availableBytes } = this.#options;
    this.#contentBytes += contentBytes;
    if (this.#contentBytes > ratioFromBytes && this.#contentBytes > maxRatio * this.#takenBytes) {
      throw exceeded(
        `${this.#contentBytes} bytes of content come out of its first ${this.#takenBytes} bytes, limit is ${maxRatio} to 1`,
      );
    }
    if (this.#contentBytes > availableBytes - reserveBytes) {
      throw new ShimError(
        "NO_SPACE",
        `Cannot unpack the disk layer: ${availableBytes} bytes were free, ${reserveBytes} bytes must stay free, ` +
          `at least ${this.#contentBytes} bytes are needed`,
        { details: { remedy: "free space there, or choose another --root", availableBytes, reserveBytes } },
      );
    }
  }

  #checkTime(): void {
    const { limits: { timeoutMs }, signal } = this.#options;
    if (signal?.aborted) {
      throw new ShimError("CANCELLED", "Cannot unpack the disk layer: cancelled", { cause: signal.reason });
    }
    if (performance.now() - this.#startMs > timeoutMs) {
      throw exceeded(`it takes more than ${timeoutMs} ms, which is the limit`);
    }
  }
}

function exceeded(why: string): ShimError {
  return new ShimError("LIMIT_EXCEEDED", `Cannot unpack the disk layer: ${why}`, {
    details: { remedy: "look where the image comes from: a layer that grows like this is made to do harm" },
  });
}
