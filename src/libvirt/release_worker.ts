import { arch } from "node:os";
import { parentPort } from "node:worker_threads";
import koffi from "koffi";

import { waitedDescriptors } from "./blocked_thread.ts";

/*
 * Entry of the thread that ends hung libvirt calls: it shuts down the socket a call waits on, so that the call fails as
 * if the daemon had gone. Without it the hung thread could not be ended, and Node would wait for it at exit. A thread
 * of its own, because the main thread makes no C call.
 */

/** SHUT_RDWR. */
const BOTH_WAYS = 2;
/** `int shutdown(int sockfd, int how)`: nothing to free; fails with ENOTSOCK on libvirt's wake-up pipe, harmlessly. */
const shutdown = koffi.load(null).func("shutdown", "int", ["int", "int"]);

parentPort?.on("message", (threadPath: unknown) => {
  let failure: string | null = null;
  try {
    for (const descriptor of waitedDescriptors(String(threadPath), arch())) shutdown(descriptor, BOTH_WAYS);
  } catch (error) {
    failure = String(error);
  }
  parentPort?.postMessage(failure);
});
