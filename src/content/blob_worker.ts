import { parentPort } from "node:worker_threads";
import { ShimError } from "../errors.ts";
import { serveBlobs } from "./serve_blobs.ts";

/* Entry of the one thread that hashes and writes large blobs. */

if (parentPort === null) {
  throw new ShimError("INTERNAL", "Cannot take blobs in: this file is a worker's entry");
}
serveBlobs(parentPort);
