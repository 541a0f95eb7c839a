import { parentPort } from "node:worker_threads";

import { ShimError } from "../errors.ts";
import { loadLibvirt } from "./load_libvirt.ts";
import { serveLibvirt } from "./serve_libvirt.ts";

/* Entry of the one thread that owns a connection. */

if (parentPort === null) {
  throw new ShimError("INTERNAL", "Cannot serve libvirt: this file is a worker's entry");
}
serveLibvirt(parentPort, loadLibvirt);
