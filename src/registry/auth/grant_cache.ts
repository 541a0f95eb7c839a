import { whileWanted } from "../../host/while_wanted.ts";
import type { Credential } from "./credential.ts";
import type { Secret } from "./secret.ts";

/** What lets our requests pass at one origin, for one scope. */
export type Grant = {
  /** The value of the Authorization field. */
  readonly authorization: Secret;
  /** Who we said we are; undefined for a token that everybody gets. */
  readonly credential: Credential | undefined;
  /** How long it may be used, from when it was asked for; undefined when only a refusal ends it. */
  readonly lifetimeMs?: number;
  /** Gets another of its kind. */
  readonly renew: () => Promise<Grant | undefined>;
};

type Kept = { readonly grant: Grant; readonly untilMs: number };

/** So much of a lifetime is not used: it may end while a request is under way. */
const MARGIN = 0.1;

/**
 * The grants of this process by origin and scope, in memory only. Whoever wants one that is being got waits for it: a
 * token that ends while hundreds of requests run is fetched once.
 */
export class GrantCache {
  readonly #kept = new Map<string, Kept>();
  readonly #underWay = new Map<string, Promise<Grant | undefined>>();
  readonly #now: () => number;

  /** @param now milliseconds on a clock that never jumps */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The grant to use now. One whose time is over is renewed first. */
  async current(key: string, signal?: AbortSignal): Promise<Grant | undefined> {
    const kept = this.#kept.get(key);
    if (kept === undefined) return undefined;
    if (this.#now() < kept.untilMs) return kept.grant;
    return await this.renew(key, { refused: kept.grant, obtain: kept.grant.renew, signal });
  }

  /**
   * Another grant than the one that was refused, got by whoever is first to ask.
   *
   * @param obtain runs for all who wait, so nobody's signal ends it
   * @throws {ShimError} CANCELLED when `signal` ends the wait; what `obtain` throws
   */
  async renew(
    key: string,
    { refused, obtain, signal }: {
      readonly refused: Grant | undefined;
      readonly obtain: () => Promise<Grant | undefined>;
      readonly signal: AbortSignal | undefined;
    },
  ): Promise<Grant | undefined> {
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.grant !== refused && this.#now() < kept.untilMs) return kept.grant;
    let flight = this.#underWay.get(key);
    if (flight === undefined) {
      flight = this.#fetch(key, obtain).finally(() => this.#underWay.delete(key));
      // Those who wait hear of a failure; it must not end the process when all of them have left.
      flight.catch(() => {});
      this.#underWay.set(key, flight);
    }
    return await whileWanted(flight, { action: "log in", signal });
  }

  /** It was refused at once: nobody needs to try it again. */
  forget(key: string, grant: Grant): void {
    if (this.#kept.get(key)?.grant === grant) this.#kept.delete(key);
  }

  async #fetch(key: string, obtain: () => Promise<Grant | undefined>): Promise<Grant | undefined> {
    const askedMs = this.#now();
    const grant = await obtain();
    const { lifetimeMs = Infinity } = grant ?? {};
    if (grant === undefined) this.#kept.delete(key);
    else this.#kept.set(key, { grant, untilMs: askedMs + lifetimeMs * (1 - MARGIN) });
    return grant;
  }
}
