import { z } from "zod";
import { ShimError } from "../../errors.ts";
import { Secret } from "./secret.ts";

/** What a token server gave us to show to the registry. */
export type AccessToken = { readonly token: Secret; readonly lifetimeMs: number };

/** Of an answer of a token server. */
export const MAX_TOKEN_BODY_BYTES = 64 * 1024;

/** distribution's token specification: 60 seconds when nothing is said. */
const DEFAULT_LIFETIME_S = 60;
const MIN_LIFETIME_S = 30;
const MAX_LIFETIME_S = 3600;
/** What may stand in a header's value as one word: no line break, no NUL, nothing beyond ASCII. */
const HEADER_WORD = /^[\x21-\x7e]+$/;

/** A refresh token that comes along is not read: nothing of it is kept. */
const tokenBody = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.unknown().optional(),
});

/**
 * Reads the answer of a token server. When it was issued by the server's clock plays no part: the two clocks may differ.
 *
 * @param bytes all of the body, or one byte more than {@link MAX_TOKEN_BODY_BYTES}
 * @throws {ShimError} REGISTRY_PROTOCOL
 * @see https://distribution.github.io/distribution/spec/auth/token/#requesting-a-token
 */
export function parseAccessToken(bytes: Uint8Array, action: string): AccessToken {
  const refuse = (why: string): never => {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the token server's answer ${why}`);
  };
  if (bytes.length > MAX_TOKEN_BODY_BYTES) refuse(`is over ${MAX_TOKEN_BODY_BYTES} bytes`);
  const { token, access_token, expires_in } = readBody(bytes) ?? refuse("is not a token document");
  const [first, second] = [token || undefined, access_token || undefined];
  if (first !== undefined && second !== undefined && first !== second) refuse("holds two different tokens");
  const word = first ?? second ?? refuse("holds no token");
  if (!HEADER_WORD.test(word)) refuse("holds a token that cannot stand in a header");
  const seconds = typeof expires_in === "number" ? expires_in : DEFAULT_LIFETIME_S;
  return {
    token: new Secret(word),
    lifetimeMs: 1000 * Math.min(Math.max(seconds, MIN_LIFETIME_S), MAX_LIFETIME_S),
  };
}

function readBody(bytes: Uint8Array): z.infer<typeof tokenBody> | undefined {
  try {
    return tokenBody.parse(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    // Its words might be a secret's; that it is no such document says enough.
    return undefined;
  }
}
