/**
 * A token server for `docker-registry`: knows one user, and who may do what. Real tokens, signed by a key that the
 * registry is told to trust.
 */
import { createPrivateKey, randomUUID, sign, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { Certificate } from "./certificates.ts";

export type TokenServerOptions = {
  /** Signs the tokens; its authority is the registry's `rootcertbundle`. */
  readonly certificate: Certificate;
  readonly username: string;
  readonly password: string;
  /** What those may do who are nobody. Default: nothing. */
  readonly anonymous?: readonly string[];
};

export type TokenServer = {
  readonly realm: string;
  /** The scopes of each request, and as whom it came. */
  readonly requests: { readonly user: string | undefined; readonly scopes: readonly string[] }[];
  stop(): Promise<void>;
};

export const TOKEN_ISSUER = "test token server";
export const TOKEN_SERVICE = "test registry";

export async function startTokenServer(
  { certificate, username, password, anonymous = [] }: TokenServerOptions,
): Promise<TokenServer> {
  const requests: { user: string | undefined; scopes: readonly string[] }[] = [];
  const key = createPrivateKey(certificate.key);
  const x5c = [new X509Certificate(certificate.cert).raw.toString("base64")];
  const known = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

  const issue = (scopes: readonly string[], user: string | undefined) => {
    const nowS = Math.floor(Date.now() / 1000);
    const access = scopes.flatMap((scope) => {
      const [, type, name, actions = ""] = /^([^:]+):(.+):([^:]*)$/.exec(scope) ?? [];
      const wanted = actions.split(",");
      return [{
        type,
        name,
        actions: user === undefined ? wanted.filter((each) => anonymous.includes(each)) : wanted,
      }];
    });
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = {
      iss: TOKEN_ISSUER,
      sub: user ?? "",
      aud: TOKEN_SERVICE,
      exp: nowS + 300,
      nbf: nowS - 60,
      iat: nowS,
      jti: randomUUID(),
      access,
    };
    const signed = `${encode({ typ: "JWT", alg: "ES256", x5c })}.${encode(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  };

  const server = createServer((request, response) => {
    const { authorization } = request.headers;
    const user = authorization === known ? username : undefined;
    const scopes = new URL(request.url ?? "/", "http://x").searchParams.getAll("scope");
    requests.push({ user, scopes });
    if (authorization !== undefined && user === undefined) return void response.writeHead(401).end();
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ token: issue(scopes, user), expires_in: 300 }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the token server has no address");
  return {
    realm: `http://127.0.0.1:${address.port}/auth`,
    requests,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
