import type { RegistryReference } from "../image/reference.ts";
import { Authorization, type AuthorizationSettings } from "./auth/authorization.ts";
import { type Endpoint, endpointOf } from "./endpoint.ts";
import { DEFAULT_LIMITS, type RegistryLimits } from "./limits.ts";
import { contentKey, fetchFromPlaces } from "./mirror/fetch_from_places.ts";
import type { FindPlaces, Places } from "./mirror/place.ts";
import { PlaceMemory } from "./mirror/place_memory.ts";
import type { NetworkSettings } from "./network/connections.ts";
import { PacedTransport } from "./pacing/paced_transport.ts";
import { WarningLog } from "./pacing/warning_log.ts";
import { sendFollowing, sentBy } from "./redirect.ts";
import type { Repository, SharedTransfers } from "./repository.ts";
import { type RepositoryPolicy, requireAllowed } from "./repository_policy.ts";
import { ReadAhead } from "./transfer/read_ahead.ts";
import { UnsteadyOrigins } from "./transfer/same_entity.ts";
import { TransferQueue } from "./transfer/transfer_queue.ts";
import { type RegistryRequest, type RegistryResponse, Transport } from "./transport.ts";

/** What the user decides about registries. */
export type RegistrySettings = {
  /** Hosts, as references spell them, that may be spoken to in plain HTTP although they are not loopback. */
  readonly insecureHosts?: readonly string[];
  readonly limits?: Partial<RegistryLimits>;
  /** Certificates, proxies, and what a registry may lead us to. */
  readonly network?: NetworkSettings;
  /** Default: we are nobody, and get what everybody gets. */
  readonly authorization?: Omit<AuthorizationSettings, "limits" | "insecureHosts">;
  /** Something the user should know, but that stops nothing: what registries warn of, once each, is among it. */
  readonly onWarning?: (message: string) => void;
  /** `HOST[:PORT]` of registries whose Docker-Content-Digest may be wrong: told, and otherwise ignored. */
  readonly ignoredDigestHeaders?: readonly string[];
  /** Default: no registry has mirrors. */
  readonly findPlaces?: FindPlaces;
  /** Default: every repository may be used. */
  readonly policy?: RepositoryPolicy;
};

/** One place of a registry, and the way there. */
export type Waypoint = {
  /** Where its repositories begin. */
  readonly url: URL;
  /** Whether it is asked what a tag means. */
  readonly resolves: boolean;
  /** `HOST:PORT` of the proxy, if there is one. */
  readonly proxy: string | null;
};

/**
 * All registries this process speaks to, and what requests to them share: connections, and whatever one request learns
 * that others should know. Close it.
 */
export class Registries {
  readonly #settings: RegistrySettings;
  readonly #limits: RegistryLimits;
  readonly #transport: Transport;
  readonly #authorization: Authorization;
  readonly #paced: PacedTransport;
  readonly #memory = new PlaceMemory();
  readonly #shared: SharedTransfers;

  constructor(settings: RegistrySettings = {}) {
    this.#settings = settings;
    this.#limits = { ...DEFAULT_LIMITS, ...settings.limits };
    this.#transport = new Transport(this.#limits, settings.network);
    const { authorization, insecureHosts = [], onWarning } = settings;
    const warnings = new WarningLog(onWarning);
    this.#shared = {
      warnings,
      queue: new TransferQueue(this.#limits.transfersAtOnce),
      readAhead: new ReadAhead(this.#limits),
      unsteadyOrigins: new UnsteadyOrigins(),
    };
    this.#paced = new PacedTransport(this.#transport, warnings);
    this.#authorization = new Authorization(this.#paced, {
      ...authorization,
      credentials: { ...(onWarning ? { onWarning } : {}), ...authorization?.credentials },
      insecureHosts,
      limits: this.#limits,
    });
  }

  /** Loads what the first request needs. Throws as {@link Connections.load} does. */
  async load(): Promise<void> {
    await this.#transport.connections.load();
  }

  /** How long one operation may take in all, milliseconds. */
  get deadlineMs(): number {
    return this.#limits.deadlineMs;
  }

  /**
   * No connection is made before the first request.
   *
   * @throws {ShimError} REFERENCE_INVALID, POLICY_DENIED
   */
  repository({ host, repository }: Pick<RegistryReference, "host" | "repository">): Repository {
    const endpoint = this.requireAllowed({ host, repository });
    const last = { baseUrl: new URL("/v2/", endpoint.baseUrl), pulls: true, resolves: true, headers: {} };
    const { send } = this;
    const memory = this.#memory;
    // Once for all requests of this repository; a broken file is told by each.
    let found: Promise<Places> | undefined;
    const findPlaces = () => found ??= this.#findPlaces(host, endpoint.baseUrl.host);
    return {
      endpoint,
      limits: this.#limits,
      shared: this.#shared,
      ignoresDigestHeader: this.#settings.ignoredDigestHeaders?.includes(host) ?? false,
      fetch: async (request) => {
        const { mirrors, server = last } = await findPlaces();
        return await fetchFromPlaces({ host, repository, mirrors, last: server, memory, send }, request);
      },
      ask: async (request) => {
        const { server = last } = await findPlaces();
        const places = { host, repository, mirrors: [], last: server, memory, send };
        return await fetchFromPlaces(places, request);
      },
      doubt: (path) => memory.doubtServers(contentKey({ host, repository }, path)),
      send: async ({ alsoPulls, ...request }) => {
        await findPlaces();
        const authorizedFor = {
          host,
          repository,
          actions: "pull,push",
          ...(alsoPulls === undefined ? {} : { alsoPulls }),
        } as const;
        // An upload's session may be elsewhere: then it is the registry that sends us there, as nobody.
        const isElsewhere = request.url.origin !== endpoint.baseUrl.origin;
        return await send({
          ...request,
          ...(isElsewhere ? sentBy(request.url, { url: endpoint.baseUrl }) : { authorizedFor }),
        });
      },
    };
  }

  /**
   * Whether a repository may be used at all, asked before anything else is done with it.
   *
   * @throws {ShimError} REFERENCE_INVALID, POLICY_DENIED
   */
  requireAllowed(reference: Pick<RegistryReference, "host" | "repository">): Endpoint {
    const endpoint = endpointOf(reference, this.#settings.insecureHosts);
    if (this.#settings.policy) requireAllowed(this.#settings.policy, endpoint);
    return endpoint;
  }

  /**
   * How a repository would be reached, in the order in which places are asked, the registry last.
   *
   * @throws {ShimError} REFERENCE_INVALID, POLICY_DENIED, CONFIG_INVALID
   */
  async route(
    { host, repository }: Pick<RegistryReference, "host" | "repository">,
  ): Promise<readonly Waypoint[]> {
    const { baseUrl } = this.requireAllowed({ host, repository });
    const { mirrors, server } = await this.#findPlaces(host, baseUrl.host);
    return [...mirrors, server ?? { baseUrl: new URL("/v2/", baseUrl), resolves: true }].map((place) => ({
      url: place.baseUrl,
      resolves: place.resolves,
      // Without user and password.
      proxy: this.#transport.connections.proxyOf(place.baseUrl)?.host ?? null,
    }));
  }

  /** One request; follows redirects of GET and HEAD only. */
  readonly send = (request: RegistryRequest): Promise<RegistryResponse> =>
    this.#authorization.send(
      request,
      (authorized) =>
        authorized.method === "GET" || authorized.method === "HEAD"
          ? sendFollowing(this.#paced, authorized)
          : this.#paced.send(authorized),
    );

  async #findPlaces(host: string, dialledHost: string): Promise<Places> {
    const places = await this.#settings.findPlaces?.(host) ?? { mirrors: [] };
    const { connections } = this.#transport;
    if (places.isNamed) connections.addNamed(dialledHost);
    if (places.tls) connections.setTls(dialledHost, places.tls);
    for (const { baseUrl, tls } of [...places.mirrors, ...(places.server ? [places.server] : [])]) {
      connections.addNamed(baseUrl.host);
      if (tls) connections.setTls(baseUrl.host, tls);
    }
    return places;
  }

  /** Cancels what is under way and closes all connections. */
  close(): Promise<void> {
    return this.#transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
