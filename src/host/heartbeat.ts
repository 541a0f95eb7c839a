import { futimesSync } from "node:fs";

/** Often enough that a waiter who looks for a minute cannot be mistaken, seldom enough to cost nothing. */
const BEAT_MS = 1000;

/**
 * Touches an open file every second, so that others see by its time of writing that this process still runs: one that
 * was stopped, or is stuck in the kernel, does not touch it. What the time says does not matter, only that it changes.
 *
 * @returns ends it; to be called before the descriptor is closed
 */
export function startHeartbeat(fd: number): () => void {
  const beat = () => {
    try {
      const now = new Date();
      futimesSync(fd, now, now);
    } catch {
      // A hint to others: they give up on us earlier at worst.
    }
  };
  const timer = setInterval(beat, BEAT_MS);
  timer.unref();
  return () => clearInterval(timer);
}
