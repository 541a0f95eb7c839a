import { performance } from "node:perf_hooks";

/** What a main thread can be away for without anybody noticing, milliseconds. */
const SLOW_MS = 5;

const counts = { made: 0, slow: 0 };

/**
 * Runs one call into C on this thread, and counts it: the whole process waits until it is back, so nothing that may
 * block belongs here. `slow` tells in operation whether that holds; a thread that the host took away counts, too.
 */
export function countForeignCall<T>(call: () => T): T {
  const startMs = performance.now();
  try {
    return call();
  } finally {
    counts.made += 1;
    if (performance.now() - startMs > SLOW_MS) counts.slow += 1;
  }
}

/** How many calls this thread made into C since the process began, and how many of them took more than 5 ms. */
export function foreignCalls(): { readonly made: number; readonly slow: number } {
  return { ...counts };
}
