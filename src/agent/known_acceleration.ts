import type { Acceleration } from "../hypervisor/domain_definition.ts";
import type { Architecture } from "../image/platform.ts";

/** So soon nobody joins a group or installs another QEMU; hundreds of machines are made meanwhile. */
const KEEP_MS = 1000;

/** What was chosen a moment ago: to make sure anew asks the file system a dozen things for each machine. */
export class KnownAcceleration {
  readonly #nowMs: () => number;
  readonly #known = new Map<Architecture, { readonly acceleration: Acceleration; readonly endMs: number }>();

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  find(architecture: Architecture): Acceleration | undefined {
    const known = this.#known.get(architecture);
    return known && this.#nowMs() < known.endMs ? known.acceleration : undefined;
  }

  keep(architecture: Architecture, acceleration: Acceleration): void {
    this.#known.set(architecture, { acceleration, endMs: this.#nowMs() + KEEP_MS });
  }
}
