import type { RegistryReference } from "../image/reference.ts";
import { endpointOf } from "./endpoint.ts";
import { DEFAULT_LIMITS, type RegistryLimits } from "./limits.ts";
import type { NetworkSettings } from "./network/connections.ts";
import { sendFollowing, sentBy } from "./redirect.ts";
import type { Repository } from "./repository.ts";
import { Transport } from "./transport.ts";

/** What the user decides about registries. */
export type RegistrySettings = {
  /** Hosts, as references spell them, that may be spoken to in plain HTTP although they are not loopback. */
  readonly insecureHosts?: readonly string[];
  readonly limits?: Partial<RegistryLimits>;
  /** Certificates, proxies, and what a registry may lead us to. */
  readonly network?: NetworkSettings;
};

/**
 * All registries this process speaks to, and what requests to them share: connections, and whatever one request learns
 * that others should know. Close it.
 */
export class Registries {
  readonly #insecureHosts: readonly string[];
  readonly #limits: RegistryLimits;
  readonly #transport: Transport;

  constructor({ insecureHosts = [], limits = {}, network }: RegistrySettings = {}) {
    this.#insecureHosts = insecureHosts;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#transport = new Transport(this.#limits, network);
  }

  /** No connection is made before the first request. @throws {ShimError} REFERENCE_INVALID */
  repository(reference: Pick<RegistryReference, "host" | "repository">): Repository {
    const endpoint = endpointOf(reference, this.#insecureHosts);
    const transport = this.#transport;
    return {
      endpoint,
      limits: this.#limits,
      fetch: ({ path, ...request }) =>
        sendFollowing(transport, { ...request, url: new URL(path, endpoint.baseUrl) }),
      send: (request) => {
        // An upload's session may be elsewhere: then it is the registry that sends us there.
        const bounded = { ...request, ...sentBy(request.url, { url: endpoint.baseUrl }) };
        return request.method === "GET" || request.method === "HEAD"
          ? sendFollowing(transport, bounded)
          : transport.send(bounded);
      },
    };
  }

  /** Cancels what is under way and closes all connections. */
  close(): Promise<void> {
    return this.#transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
