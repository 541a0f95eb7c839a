import type { Digest } from "../image/digest.ts";

/** An image that may have to make room. */
export type Candidate = {
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly lastUseMs: number;
  /** What it leads to. */
  readonly blobs: ReadonlySet<Digest>;
  /** A pin, a machine or an operation under way needs it, or it was used too recently. */
  readonly isKept: boolean;
};

/**
 * Which images to give up so that at least so much space becomes free: the least recently used first, and none that is
 * kept. A blob counts when nobody needs it any more. All that may go goes when even that is not enough.
 *
 * @param options.kept blobs that are needed whatever images there are
 * @param options.bytesOf what a blob takes on disk; 0 when it is not there
 */
export function chooseVictims<C extends Candidate>(
  candidates: readonly C[],
  { wantedBytes, kept, bytesOf }: {
    readonly wantedBytes: number;
    readonly kept: ReadonlySet<Digest>;
    readonly bytesOf: (digest: Digest) => number;
  },
): readonly C[] {
  const holders = new Map<Digest, number>();
  for (const { blobs } of candidates) {
    for (const blob of blobs) holders.set(blob, (holders.get(blob) ?? 0) + 1);
  }
  const victims: C[] = [];
  let freedBytes = 0;
  for (const candidate of candidates.toSorted((one, other) => one.lastUseMs - other.lastUseMs)) {
    if (freedBytes >= wantedBytes) break;
    if (candidate.isKept) continue;
    victims.push(candidate);
    for (const blob of candidate.blobs) {
      const left = (holders.get(blob) ?? 1) - 1;
      holders.set(blob, left);
      if (left === 0 && !kept.has(blob)) freedBytes += bytesOf(blob);
    }
  }
  return victims;
}
