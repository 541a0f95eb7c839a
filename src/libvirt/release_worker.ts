import { arch } from "node:os";
import { workerData } from "node:worker_threads";
import koffi from "koffi";

import { ShimError } from "../errors.ts";
import { waitedDescriptors } from "./blocked_thread.ts";

/*
 * Entry of a short-lived thread that ends a hung libvirt call: it shuts down the socket the call waits on, so that
 * the call fails as if the daemon had gone. Without it the hung thread could not be ended, and Node would wait for it
 * at exit. A thread of its own, because the main thread makes no C call.
 */

if (typeof workerData !== "string") {
  throw new ShimError("INTERNAL", "Cannot release thread: its path was expected");
}
/** SHUT_RDWR. */
const BOTH_WAYS = 2;
/** `int shutdown(int sockfd, int how)`: nothing to free; fails with ENOTSOCK on libvirt's wake-up pipe, harmlessly. */
const shutdown = koffi.load(null).func("shutdown", "int", ["int", "int"]);
for (const descriptor of waitedDescriptors(workerData, arch())) shutdown(descriptor, BOTH_WAYS);
