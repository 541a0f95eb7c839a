import type { Role } from "../boot/prepared_boot.ts";
import type { Digest } from "../image/digest.ts";

export type LayerProgress = {
  readonly role: Role;
  readonly digest: Digest;
  readonly doneBytes: number;
  readonly totalBytes: number;
};

/** One look at a running operation; the API's `progress` object. */
export type Progress = {
  readonly phase: "resolving" | "pulling" | "preparing";
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
