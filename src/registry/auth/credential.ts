import { ShimError } from "../../errors.ts";
import { Secret } from "./secret.ts";

/** Who we are to one registry. */
export type Credential =
  | { readonly kind: "password"; readonly username: string; readonly password: Secret }
  /** Only good for a token server, which makes an access token of it (OAuth 2). */
  | { readonly kind: "identity-token"; readonly token: Secret };

/** What RFC 7617 cannot carry. */
const UNUSABLE = /\p{Cc}/u;
const MAX_LENGTH = 16 * 1024;

/**
 * @param place where it was found, for the message
 * @throws {ShimError} CREDENTIALS_INVALID when Basic authentication cannot carry them
 */
export function passwordCredential(username: string, password: string, place: string): Credential {
  if (username === "" || username.includes(":") || UNUSABLE.test(username)) {
    throw invalidCredentials(place, "the user's name is empty, or holds a colon or a control character");
  }
  if (password === "" || UNUSABLE.test(password) || password.length > MAX_LENGTH) {
    throw invalidCredentials(place, "the password is empty, too long, or holds a control character");
  }
  return { kind: "password", username, password: new Secret(password) };
}

/** @throws {ShimError} CREDENTIALS_INVALID */
export function identityCredential(token: string, place: string): Credential {
  if (token === "" || UNUSABLE.test(token) || token.length > MAX_LENGTH) {
    throw invalidCredentials(place, "the identity token is empty, too long, or holds a control character");
  }
  return { kind: "identity-token", token: new Secret(token) };
}

/** The value of an Authorization field. @see https://www.rfc-editor.org/rfc/rfc7617#section-2 */
export function basicAuthorization({ username, password }: Credential & { kind: "password" }): Secret {
  return new Secret(`Basic ${Buffer.from(`${username}:${password.reveal()}`).toString("base64")}`);
}

export function isSameCredential(one: Credential, other: Credential): boolean {
  if (one.kind === "password" && other.kind === "password") {
    return one.username === other.username && one.password.equals(other.password);
  }
  return one.kind === "identity-token" && other.kind === "identity-token" && one.token.equals(other.token);
}

/** @param place completes "Cannot use the credentials of …"; never holds what the place holds */
export function invalidCredentials(
  place: string,
  why: string,
  { remedy, cause }: { readonly remedy?: string; readonly cause?: unknown } = {},
): ShimError {
  return new ShimError("CREDENTIALS_INVALID", `Cannot use the credentials of ${place}: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
    details: { remedy: remedy ?? "log in again, or correct what is written there" },
  });
}
