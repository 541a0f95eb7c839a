import { parentPort } from "node:worker_threads";

import { loadLibvirt } from "../../src/libvirt/load_libvirt.ts";
import { serveLibvirt } from "../../src/libvirt/serve_libvirt.ts";
import { buildLibvirtStub } from "./libvirt_stub.ts";

/* Entry of a thread as the real one, over the stub library. */

if (parentPort === null) throw new Error("This file is a worker's entry");
serveLibvirt(parentPort, () => loadLibvirt(buildLibvirtStub()));
