import type { Role, RoleLayer } from "../boot/prepared_boot.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { SourceWait } from "../image/image_source.ts";
import { RateMeter } from "./rate_meter.ts";

/** How fast bytes move, over the last few seconds; absent while nothing is known. */
export type Pace = {
  readonly bytesPerSecond?: number;
  /** Until all is done, when it goes on like this. */
  readonly remainingSeconds?: number;
};

export type LayerProgress = Pace & {
  readonly role: Role;
  readonly digest: Digest;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Its source failed in a way that passes, and is asked again soon. Absent when bytes come. */
  readonly wait?: SourceWait;
};

/** Bytes are moving. */
export type TransferPhase = "pulling" | "pushing" | "exporting" | "importing" | "checking";

/** One look at a running operation; the API's `progress` object. */
export type Progress = Pace & {
  readonly phase: "resolving" | "preparing" | TransferPhase;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly layers: readonly LayerProgress[];
};

export type ProgressListener = (progress: Progress) => void;

/** What every use case that takes time accepts. */
export type OperationOptions = {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
  /** Told of the bytes of layers that the source gave, as they come: they came, whatever becomes of them. */
  readonly onReceived?: ((receivedBytes: number) => void) | undefined;
};

export type TransferProgressOptions = {
  readonly phase: TransferPhase;
  /** What has to be moved, each blob once. */
  readonly blobs: readonly Descriptor[];
  /** Which of the blobs have a role, for people. */
  readonly layers: readonly RoleLayer[];
  readonly listener: ProgressListener | undefined;
};

/** Adds up what the blobs of one transfer report, for whoever is listening. */
export class TransferProgress {
  readonly #options: TransferProgressOptions;
  readonly #layers: readonly RoleLayer[];
  readonly #doneBytes = new Map<Digest, number>();
  readonly #waits = new Map<Digest, SourceWait>();
  readonly #meters = new Map<Digest, RateMeter>();
  readonly #meter = new RateMeter();
  readonly #totalBytes: number;

  constructor(options: TransferProgressOptions) {
    this.#options = options;
    const moving = new Set(options.blobs.map((blob) => blob.digest));
    this.#layers = options.layers.filter((layer) => moving.has(layer.descriptor.digest));
    this.#totalBytes = options.blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
    if (options.blobs.length > 0) this.#tell();
  }

  advance(digest: Digest, doneBytes: number): void {
    this.#doneBytes.set(digest, doneBytes);
    this.#waits.delete(digest);
    const meter = this.#meters.get(digest) ?? new RateMeter();
    this.#meters.set(digest, meter);
    meter.note(doneBytes);
    this.#meter.note(this.#allDoneBytes());
    this.#tell();
  }

  /** The source of this blob is asked again, but not at once. */
  wait(digest: Digest, wait: SourceWait): void {
    this.#waits.set(digest, wait);
    this.#tell();
  }

  #allDoneBytes(): number {
    return [...this.#doneBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  #tell(): void {
    const doneBytes = this.#allDoneBytes();
    this.#options.listener?.({
      phase: this.#options.phase,
      doneBytes,
      totalBytes: this.#totalBytes,
      ...this.#meter.pace(this.#totalBytes - doneBytes),
      layers: this.#layers.map(({ role, descriptor }) => this.#layer(role, descriptor)),
    });
  }

  #layer(role: Role, { digest, sizeBytes }: Descriptor): LayerProgress {
    const doneBytes = this.#doneBytes.get(digest) ?? 0;
    const wait = this.#waits.get(digest);
    return {
      role,
      digest,
      doneBytes,
      totalBytes: sizeBytes,
      ...this.#meters.get(digest)?.pace(sizeBytes - doneBytes),
      ...(wait === undefined ? {} : { wait }),
    };
  }
}
