import type { Role, RoleLayer } from "../boot/prepared_boot.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";

export type LayerProgress = {
  readonly role: Role;
  readonly digest: Digest;
  readonly doneBytes: number;
  readonly totalBytes: number;
};

/** Bytes are moving. */
export type TransferPhase = "pulling" | "pushing" | "exporting" | "importing" | "checking";

/** One look at a running operation; the API's `progress` object. */
export type Progress = {
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
    this.#tell();
  }

  #tell(): void {
    this.#options.listener?.({
      phase: this.#options.phase,
      doneBytes: [...this.#doneBytes.values()].reduce((sum, bytes) => sum + bytes, 0),
      totalBytes: this.#totalBytes,
      layers: this.#layers.map(({ role, descriptor }) => ({
        role,
        digest: descriptor.digest,
        doneBytes: this.#doneBytes.get(descriptor.digest) ?? 0,
        totalBytes: descriptor.sizeBytes,
      })),
    });
  }
}
