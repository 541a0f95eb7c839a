import { ShimError } from "../../errors.ts";
import type { SentBy } from "../network/reach.ts";
import { sendFollowing } from "../redirect.ts";
import { responseError } from "../response_error.ts";
import {
  readUpTo,
  type RegistryRequest,
  type RegistryResponse,
  requireIdentityCoding,
} from "../transport.ts";
import { type AccessToken, MAX_TOKEN_BODY_BYTES, parseAccessToken } from "./access_token.ts";
import { basicAuthorization, type Credential } from "./credential.ts";
import type { Realm } from "./realm.ts";
import { withoutSecrets } from "./without_secrets.ts";

export type TokenWish = {
  readonly realm: Realm;
  /** What the registry is called at its token server, when it said so. */
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
  /** The registry whose word led to the realm. */
  readonly registry: URL;
  /** What the token is for: completes "Cannot …". */
  readonly action: string;
  readonly timeoutMs: number;
};

const CLIENT_ID = "bootshim";

/**
 * Asks a token server once. It sees the credential for the registry and nothing else, and is not followed to another
 * origin.
 *
 * @throws {ShimError} REGISTRY_UNAUTHORIZED, REGISTRY_DENIED; REGISTRY_PROTOCOL; REALM_REFUSED when it redirects to
 *   another origin, or is on a network where the registry is not; REGISTRY_UNAVAILABLE and its like
 * @see https://distribution.github.io/distribution/spec/auth/token/
 * @see https://distribution.github.io/distribution/spec/auth/oauth/
 */
export async function requestToken(
  send: (request: RegistryRequest) => Promise<RegistryResponse>,
  wish: TokenWish,
): Promise<AccessToken> {
  const { realm, credential, registry, timeoutMs } = wish;
  const action = `${wish.action}, for a token of "${realm.url.host}"`;
  const deadline = AbortSignal.timeout(timeoutMs);
  // At its own origin, or where the user says, it is not a stranger's word that leads us there.
  const isOurWord = realm.isListed || realm.url.origin === registry.origin;
  const sentBy: { sentBy?: SentBy } = isOurWord ? {} : { sentBy: { registry, as: "realm" } };
  try {
    const response = await ask(send, { ...requestOf(wish), ...sentBy, action, signal: deadline });
    try {
      if (response.status !== 200) throw await refusal(response, { action, credential });
      requireIdentityCoding(response, action);
      return parseAccessToken(await readUpTo(response.body, MAX_TOKEN_BODY_BYTES + 1), action);
    } finally {
      response.discard();
    }
  } catch (error) {
    if (!deadline.aborted) throw error;
    throw new ShimError("REGISTRY_TIMEOUT", `Cannot ${action}: no answer within ${timeoutMs} ms`, {
      cause: error,
    });
  }
}

function requestOf(
  { realm, service, scopes, credential }: TokenWish,
): Pick<RegistryRequest, "method" | "url" | "headers" | "body"> {
  const words: [string, string][] = [
    ...(service === undefined ? [] : [["service", service] satisfies [string, string]]),
    ...scopes.map((scope): [string, string] => ["scope", scope]),
  ];
  if (credential?.kind === "identity-token") {
    const form = new URLSearchParams([
      ["grant_type", "refresh_token"],
      ["client_id", CLIENT_ID],
      ...words.filter(([name]) => name !== "scope"),
      // OAuth 2 has one field for all scopes.
      ["scope", scopes.join(" ")],
      ["refresh_token", credential.token.reveal()],
    ]);
    return {
      method: "POST",
      url: realm.url,
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: new TextEncoder().encode(form.toString()),
    };
  }
  const url = new URL(realm.url);
  for (const name of ["service", "scope"]) url.searchParams.delete(name);
  for (const [name, value] of words) url.searchParams.append(name, value);
  const headers = credential === undefined ? {} : { authorization: basicAuthorization(credential).reveal() };
  return { method: "GET", url, headers };
}

function ask(
  send: (request: RegistryRequest) => Promise<RegistryResponse>,
  request: RegistryRequest,
): Promise<RegistryResponse> {
  if (request.method !== "GET") return send(request);
  return sendFollowing({
    send: (hop) => {
      if (hop.url.origin === request.url.origin) return send(hop);
      throw new ShimError(
        "REALM_REFUSED",
        `Cannot ${request.action}: it redirects to "${hop.url.origin}", tokens come from the token server alone`,
      );
    },
  }, request);
}

async function refusal(
  response: RegistryResponse,
  { action, credential }: { readonly action: string; readonly credential: Credential | undefined },
): Promise<ShimError> {
  const { status } = response;
  if (status >= 300 && status < 400) {
    return new ShimError("REALM_REFUSED", `Cannot ${action}: it redirects a request that holds a secret`);
  }
  // OAuth 2 answers 400 to a refresh token that is not valid any more.
  const isDenial = credential !== undefined &&
    (status === 401 || (status === 400 && credential.kind === "identity-token"));
  const shown = credential === undefined
    ? []
    : credential.kind === "password"
    ? [credential.password, basicAuthorization(credential)]
    : [credential.token];
  return await responseError(withoutSecrets({ ...response, isDenial }, shown), action, "token server");
}
