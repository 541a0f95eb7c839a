import { ShimError } from "../../errors.ts";
import type { RegistryLimits } from "../limits.ts";
import type { RegistryRequest, RegistryResponse, Transport } from "../transport.ts";
import { isSameHost } from "./auth_file.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import { basicAuthorization, type Credential, isSameCredential } from "./credential.ts";
import { type CredentialSettings, CredentialStore } from "./credentials.ts";
import { type Grant, GrantCache } from "./grant_cache.ts";
import { acceptRealm, isLoopbackName } from "./realm.ts";
import { Secret } from "./secret.ts";
import { requestToken } from "./token_request.ts";
import { withoutSecrets } from "./without_secrets.ts";

/** As whom a request is to be sent, and what it needs. Without it a request is anonymous. */
export type AuthorizedFor = {
  /** Whose credentials: `HOST[:PORT]` as references spell it. */
  readonly host: string;
  readonly repository: string;
  readonly actions: "pull" | "pull,push";
  /** Another repository of the same registry that is read from. */
  readonly alsoPulls?: string;
};

export type AuthorizationSettings = {
  readonly credentials?: CredentialSettings;
  /** By `HOST[:PORT]`, the origins of token servers that the registry may name besides its own. */
  readonly tokenServers?: ReadonlyMap<string, readonly string[]>;
  readonly insecureHosts?: readonly string[];
  readonly limits: RegistryLimits;
  /** Milliseconds on a clock that never jumps. */
  readonly now?: () => number;
};

type Send = (request: RegistryRequest) => Promise<RegistryResponse>;

/**
 * Shows registries who we are, when they ask. All requests of a process share it.
 *
 * A request is sent as before until its origin answers 401; then the way that the origin asks for is gone once, and the
 * request is sent once more. What the origin asks for beyond our repository is not asked of its token server.
 */
export class Authorization {
  readonly #transport: Pick<Transport, "send">;
  readonly #settings: AuthorizationSettings;
  readonly #store: CredentialStore;
  readonly #grants: GrantCache;

  constructor(transport: Pick<Transport, "send">, settings: AuthorizationSettings) {
    this.#transport = transport;
    this.#settings = settings;
    this.#store = new CredentialStore(settings.credentials);
    this.#grants = new GrantCache(settings.now);
  }

  /**
   * @param via sends the request; where that leads to another origin, it takes the Authorization field away
   * @returns the answer, which may be a 401: `isDenial` tells whether somebody's login was refused
   * @throws {ShimError} CREDENTIALS_INVALID, REALM_REFUSED, REGISTRY_PROTOCOL, what a token server's failure is, and
   *   what `via` throws; REGISTRY_UNAVAILABLE when we had to log in anew after the body was sent: it passes
   */
  async send(request: RegistryRequest, via: Send): Promise<RegistryResponse> {
    const { authorizedFor: whom, signal } = request;
    // What the user's configuration sends to a place goes before.
    if (whom === undefined || request.headers["authorization"] !== undefined) return await via(request);
    const key = [request.url.origin, ...scopesOf(whom)].join(" ");
    const first = await this.#grants.current(key, signal);
    const response = await via(withGrant(request, first));
    if (response.status !== 401 || response.url.origin !== request.url.origin) {
      return finished(response, { request, grant: first });
    }
    const second = await this.#answer(response, { request, whom, key, refused: first });
    if (second === undefined) return finished(response, { request, grant: first });
    response.discard();
    if (request.body !== undefined && !(request.body instanceof Uint8Array)) {
      throw new ShimError(
        "REGISTRY_UNAVAILABLE",
        `Cannot ${request.action}: the login ended meanwhile, and was renewed`,
      );
    }
    const last = await via(withGrant(request, second));
    if (last.status === 401) this.#grants.forget(key, second);
    return finished(last, { request, grant: second });
  }

  /** @returns undefined when we have nothing (else) to show for it */
  async #answer(
    response: RegistryResponse,
    { request, whom, key, refused }: {
      readonly request: RegistryRequest;
      readonly whom: AuthorizedFor;
      readonly key: string;
      readonly refused: Grant | undefined;
    },
  ): Promise<Grant | undefined> {
    try {
      const { url, action, signal } = request;
      const challenges = parseChallenges(response.values("www-authenticate"), action);
      const obtain = () => this.#obtain(challenges, { url, action, whom, refused });
      return await this.#grants.renew(key, { refused, obtain, signal });
    } catch (error) {
      response.discard();
      throw error;
    }
  }

  async #obtain(
    challenges: readonly Challenge[],
    { url, action, whom, refused }: {
      readonly url: URL;
      readonly action: string;
      readonly whom: AuthorizedFor;
      readonly refused: Grant | undefined;
    },
  ): Promise<Grant | undefined> {
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    const isBasic = challenges.some(({ scheme }) => scheme === "basic");
    if (bearer === undefined && !isBasic) return undefined;
    const credential = await this.#credentialFor(url, whom);
    if (bearer !== undefined) return await this.#getToken(bearer, { url, action, whom, credential });
    if (credential?.kind !== "password") return undefined;
    // The same again would be refused again, and some servers lock an account after a few.
    if (refused?.credential && isSameCredential(refused.credential, credential)) return undefined;
    const authorization = basicAuthorization(credential);
    const grant: Grant = { authorization, credential, renew: () => Promise.resolve(grant) };
    return grant;
  }

  async #getToken(
    challenge: Challenge,
    { url, action, whom, credential }: {
      readonly url: URL;
      readonly action: string;
      readonly whom: AuthorizedFor;
      readonly credential: Credential | undefined;
    },
  ): Promise<Grant> {
    const { limits, tokenServers, insecureHosts = [] } = this.#settings;
    const named = challenge.parameters.get("realm");
    if (named === undefined) {
      throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: its challenge names no token server`);
    }
    const allowed = [...tokenServers ?? []].flatMap(([host, origins]) =>
      isSameHost(host, { host: whom.host, scheme: schemeOf(url) }) ? origins : []
    );
    const { token, lifetimeMs } = await requestToken((request) => this.#transport.send(request), {
      realm: acceptRealm(named, { registry: url, host: whom.host, allowed, insecureHosts, action }),
      service: challenge.parameters.get("service"),
      scopes: scopesOf(whom),
      credential,
      registry: url,
      action,
      timeoutMs: limits.connectTimeoutMs + limits.headersTimeoutMs,
    });
    return {
      authorization: new Secret(`Bearer ${token.reveal()}`),
      credential,
      lifetimeMs,
      renew: async () => {
        const fresh = await this.#credentialFor(url, whom);
        return await this.#getToken(challenge, { url, action, whom, credential: fresh });
      },
    };
  }

  /** In plain HTTP everybody on the way reads along: only where the user has said that it may be so. */
  async #credentialFor(url: URL, { host, repository }: AuthorizedFor): Promise<Credential | undefined> {
    const scheme = schemeOf(url);
    const { insecureHosts = [] } = this.#settings;
    const isAccepted = scheme === "https:" || isLoopbackName(url.hostname) ||
      insecureHosts.some((listed) => isSameHost(listed, { host: url.host, scheme }));
    return isAccepted ? await this.#store.find({ host, repository, scheme }) : undefined;
  }
}

function schemeOf(url: URL): "https:" | "http:" {
  return url.protocol === "https:" ? "https:" : "http:";
}

/** Never more than the request needs, whatever the registry says that it wants. */
function scopesOf({ repository, actions, alsoPulls }: AuthorizedFor): readonly string[] {
  const scopes = [`repository:${repository}:${actions}`];
  return alsoPulls === undefined ? scopes : [...scopes, `repository:${alsoPulls}:pull`];
}

function withGrant(request: RegistryRequest, grant: Grant | undefined): RegistryRequest {
  if (grant === undefined) return request;
  return { ...request, headers: { ...request.headers, authorization: grant.authorization.reveal() } };
}

function finished(
  response: RegistryResponse,
  { request, grant }: { readonly request: RegistryRequest; readonly grant: Grant | undefined },
): RegistryResponse {
  // Elsewhere no login of ours is known, and none would be told.
  const isElsewhere = response.url.origin !== request.url.origin;
  const isDenial = response.status === 401 && (isElsewhere || grant?.credential !== undefined);
  const secrets = [
    ...(grant === undefined ? [] : [grant.authorization]),
    ...(grant?.credential?.kind === "password" ? [grant.credential.password] : []),
  ];
  return withoutSecrets(isDenial ? { ...response, isDenial } : response, secrets);
}
