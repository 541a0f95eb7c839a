import { ShimError } from "../../errors.ts";
import type { RegistryResponse } from "../transport.ts";

/** Of what is remembered; servers whose tags mean little are few. */
const MAX_ORIGINS = 1000;

/**
 * Origins whose entity tags changed while the content was the same, or was fetched anew: from then on they are not
 * believed. The digest decides in any case; tags only spare us to find out at the end.
 */
export class UnsteadyOrigins {
  readonly #origins = new Set<string>();

  has(origin: string): boolean {
    return this.#origins.has(origin);
  }

  add(origin: string): void {
    if (this.#origins.size < MAX_ORIGINS) this.#origins.add(origin);
  }
}

/** Whether all parts of one blob are of one thing, as far as each server says. */
export class SameEntity {
  readonly #unsteady: UnsteadyOrigins;
  readonly #validators = new Map<string, string>();
  /** Told again to everybody: whoever saw it first may be a connection whose failures nobody hears of. */
  #changed: ShimError | undefined;

  constructor(unsteady: UnsteadyOrigins) {
    this.#unsteady = unsteady;
  }

  /**
   * @throws {ShimError} CONTENT_DIGEST_MISMATCH when the server had another entity in an earlier answer: what came before
   *   must not be continued, but fetched from the start
   */
  require(response: Pick<RegistryResponse, "url" | "values">, action: string): void {
    if (this.#changed) throw this.#changed;
    const { origin } = response.url;
    const validator = validatorOf(response);
    if (validator === undefined || this.#unsteady.has(origin)) return;
    const before = this.#validators.get(origin);
    this.#validators.set(origin, validator);
    if (before === undefined || before === validator) return;
    this.#unsteady.add(origin);
    this.#changed = new ShimError(
      "CONTENT_DIGEST_MISMATCH",
      `Cannot ${action}: it changed at the server while it was fetched`,
      { details: { isChanged: true } },
    );
    throw this.#changed;
  }
}

/** A strong entity tag, else the time of the last change. */
function validatorOf({ values }: Pick<RegistryResponse, "values">): string | undefined {
  const [tag] = values("etag");
  if (tag !== undefined) return tag.startsWith("W/") ? undefined : tag;
  return values("last-modified")[0];
}
