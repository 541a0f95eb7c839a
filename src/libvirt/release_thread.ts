import { once } from "node:events";
import { Worker } from "node:worker_threads";

/** How long the release of a hung thread may take; it makes a few system calls that never wait. */
const RELEASE_LIMIT_MS = 5_000;

/** One for the whole OS process, made at the first need: Deno never closes two descriptors of a thread with koffi. */
let releaser: Worker | null = null;
let last: Promise<unknown> = Promise.resolve();

/**
 * Makes the C call fail that a thread of this process waits in.
 *
 * @param threadPath `/proc/PID/task/TID`
 * @returns what kept it from being tried, if anything did; never rejects
 */
export async function releaseThread(threadPath: string): Promise<unknown> {
  const turn = last.then(() => releaseNow(threadPath));
  last = turn;
  return await turn;
}

async function releaseNow(threadPath: string): Promise<unknown> {
  const worker = releaser ?? new Worker(new URL("./release_worker.ts", import.meta.url));
  releaser = worker;
  worker.ref();
  try {
    const answer = once(worker, "message", { signal: AbortSignal.timeout(RELEASE_LIMIT_MS) });
    worker.postMessage(threadPath);
    const [failure] = await answer;
    worker.unref();
    return failure ?? undefined;
  } catch (failure) {
    releaser = null;
    void worker.terminate();
    return failure;
  }
}
