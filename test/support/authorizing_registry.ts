/**
 * A scripted registry that lets nobody in without a token or a password, and its token server at the same origin. Knows
 * nothing of the client under test.
 */
import { randomBytes } from "node:crypto";
import { type Answer, type FaultServer, respond, type Script, type SeenRequest } from "./fault_server.ts";

/** A word that must not turn up where it does not belong. */
export function canary(): string {
  return `canary-${randomBytes(12).toString("hex")}`;
}

export function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

export type AuthorizingOptions = {
  /** What it answers to whom it lets in. */
  readonly serve: Script;
  /** Its WWW-Authenticate, one value or several. Default: Bearer, with the realm `/token` here. */
  readonly challenge?: (self: string, request: SeenRequest) => string | readonly string[];
  /** What the token server answers instead of a new token. */
  readonly answerToken?: (request: SeenRequest, token: string, count: number) => Answer;
  /** The Authorization that is let in without a token. */
  readonly password?: string;
};

export type AuthorizingRegistry = {
  readonly script: Script;
  /** Every token that was issued and is good still; take some out, and they have expired. */
  readonly tokens: Set<string>;
  readonly tokenRequests: SeenRequest[];
  /** Requests other than for tokens. */
  readonly registryRequests: SeenRequest[];
};

export const tokenBody = (token: string, more: Readonly<Record<string, unknown>> = {}): Answer =>
  respond(200, { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token, ...more }) });

export function authorizingRegistry(
  { serve, challenge, answerToken, password }: AuthorizingOptions,
): AuthorizingRegistry {
  const tokens = new Set<string>();
  const tokenRequests: SeenRequest[] = [];
  const registryRequests: SeenRequest[] = [];
  const script: Script = async (request) => {
    if (request.path.startsWith("/token")) {
      tokenRequests.push(request);
      const token = canary();
      tokens.add(token);
      return answerToken?.(request, token, tokenRequests.length) ?? tokenBody(token);
    }
    registryRequests.push(request);
    const { authorization = "" } = request.headers;
    const isGood = password === undefined
      ? tokens.has(authorization.replace(/^Bearer /, ""))
      : authorization === password;
    if (isGood) return await serve(request, registryRequests.length - 1);
    const self = `http://${request.headers["host"]}`;
    const fields = challenge?.(self, request) ?? bearerChallenge(`${self}/token`);
    return respond(401, { headers: { "WWW-Authenticate": fields }, body: "who are you?" });
  };
  return { script, tokens, tokenRequests, registryRequests };
}

export function bearerChallenge(realm: string, scope = "repository:os/demo:pull"): string {
  return `Bearer realm="${realm}",service="the registry",scope="${scope}"`;
}

/** Everything a server was told, in one text. */
export function heardBy(...servers: readonly Pick<FaultServer, "requests">[]): string {
  return servers.flatMap(({ requests }) => requests).map(({ path, headers, body }) =>
    [path, decodeURIComponent(path), JSON.stringify(headers), new TextDecoder().decode(body)].join("\n")
  ).join("\n");
}
