import type { RoleLayer } from "../boot/prepared_boot.ts";
import type { Architecture } from "../image/platform.ts";
import type { ExaminedLayers } from "./examine_layers.ts";

const MAX_KNOWN = 1000;

/**
 * What layers were found to hold, for as long as this process lives: digests name bytes, and what was found out about the
 * bytes stays true. For layers that are in the cache and were audited; a refusal is none, and is found out each time.
 */
export class KnownFindings {
  readonly #known = new Map<string, ExaminedLayers>();

  find(layers: readonly RoleLayer[], architecture: Architecture): ExaminedLayers | undefined {
    return this.#known.get(keyOf(layers, architecture));
  }

  keep(layers: readonly RoleLayer[], architecture: Architecture, examined: ExaminedLayers): void {
    if (examined.refusal) return;
    if (this.#known.size >= MAX_KNOWN) this.#known.clear();
    this.#known.set(keyOf(layers, architecture), examined);
  }
}

function keyOf(layers: readonly RoleLayer[], architecture: Architecture): string {
  const parts = layers.map(({ role, descriptor: { mediaType, digest } }) => [role, mediaType, digest]);
  return JSON.stringify([architecture, ...parts]);
}
