import { setTimeout as sleep } from "node:timers/promises";

/** Of those who waited for the same host, each goes on at its own moment within this time after the pause. */
const SPREAD_MS = 500;

/** Which hosts have asked us to stay away, and until when. By origin, on a clock that never jumps. */
export class HostPauses {
  readonly #untilMs = new Map<string, number>();

  /** Nobody asks this origin for anything for a while. A shorter pause than the one that holds changes nothing. */
  pause(origin: string, forMs: number): void {
    this.#untilMs.set(origin, Math.max(performance.now() + forMs, this.#untilMs.get(origin) ?? 0));
  }

  /** Milliseconds until this origin may be asked again; 0 for most. */
  remainingMs(origin: string): number {
    const remainingMs = (this.#untilMs.get(origin) ?? 0) - performance.now();
    if (remainingMs <= 0) this.#untilMs.delete(origin);
    return Math.max(remainingMs, 0);
  }

  /** Resolves when the origin may be asked. Rejects as an aborted timer does. */
  async wait(origin: string, signal?: AbortSignal): Promise<void> {
    for (;;) {
      const remainingMs = this.remainingMs(origin);
      if (remainingMs === 0) return;
      // One that grows meanwhile is waited for, too.
      await sleep(remainingMs + Math.random() * SPREAD_MS, undefined, signal ? { signal } : {});
    }
  }
}
