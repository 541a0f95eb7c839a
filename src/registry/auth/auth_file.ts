import { z } from "zod";
import { type Credential, identityCredential, invalidCredentials, passwordCredential } from "./credential.ts";

/** Whose credentials are wanted. */
export type CredentialQuery = {
  /** As the reference spells it. */
  readonly host: string;
  readonly repository: string;
  readonly scheme: "https:" | "http:";
};

/** Both docker's `config.json` and the containers tools' `auth.json`; what else stands in them is not ours. */
const authFile = z.object({
  auths: z.record(
    z.string(),
    z.object({
      auth: z.string().optional(),
      username: z.string().optional(),
      password: z.string().optional(),
      identitytoken: z.string().optional(),
    }),
  ).nullish(),
  credsStore: z.string().optional(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
});

export type AuthFile = z.infer<typeof authFile>;

/**
 * @param place where it was read
 * @throws {ShimError} CREDENTIALS_INVALID
 * @see https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
 */
export function parseAuthFile(text: string, place: string): AuthFile {
  // An empty file is what `touch` leaves.
  if (text.trim() === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own words quote the text, which holds secrets.
    throw invalidCredentials(place, "it is not JSON");
  }
  const file = authFile.safeParse(value);
  if (file.success) return file.data;
  const where = file.error.issues[0]?.path.map(String).join(".") ?? "";
  throw invalidCredentials(place, `"${where}" is not what such a file holds there`);
}

/** The entry that names most of a repository: `HOST/NAMESPACE/…` before `HOST`. */
export function entryFor<T>(
  entries: Readonly<Record<string, T>> | null | undefined,
  query: CredentialQuery,
): T | undefined {
  const matches = Object.entries(entries ?? {}).flatMap(([key, entry]) => {
    const length = matchLength(key, query);
    return length === undefined ? [] : [{ length, entry }];
  });
  return matches.sort((one, other) => other.length - one.length)[0]?.entry;
}

/** What an entry of `auths` says itself; undefined when it only marks that a helper has it. */
export function credentialIn(
  entry: NonNullable<AuthFile["auths"]>[string] | undefined,
  place: string,
): Credential | undefined {
  if (entry === undefined) return undefined;
  if (entry.identitytoken) return identityCredential(entry.identitytoken, place);
  if (entry.auth) return decodeAuth(entry.auth, place);
  if (entry.username && entry.password) return passwordCredential(entry.username, entry.password, place);
  return undefined;
}

function decodeAuth(auth: string, place: string): Credential {
  const bytes = /^[A-Za-z0-9+/_-]*={0,2}$/.test(auth.trim()) ? Buffer.from(auth.trim(), "base64") : undefined;
  const [, username, password] = /^([^:]*):([^]*)$/.exec(bytes?.toString("utf8") ?? "") ?? [];
  if (username === undefined || password === undefined) {
    throw invalidCredentials(place, 'an "auth" is not base64 of NAME:PASSWORD');
  }
  // Old tools padded the password with NULs.
  return passwordCredential(username, password.replace(/\0+$/, ""), place);
}

/** Names of one registry. docker writes the last but one of them. */
const DOCKER_HUB: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);

/**
 * How much of the repository a key of the file names, when it names it at all. Keys are `HOST[:PORT]`, with or without
 * scheme; docker adds a version (`/v1/`), containers tools a namespace.
 */
function matchLength(key: string, { host, repository, scheme }: CredentialQuery): number | undefined {
  const [, keyHost = "", path = ""] = /^(?:https?:\/\/)?([^/]+)(?:\/(.*))?$/.exec(key) ?? [];
  if (!isSameHost(keyHost, { host, scheme })) return undefined;
  const namespace = path.replace(/^v[12](?:\/|$)/, "").replace(/\/+$/, "");
  if (namespace === "" || namespace === repository) return namespace.length;
  return repository.startsWith(`${namespace}/`) ? namespace.length : undefined;
}

/** Whether both names are one origin: letter case and the scheme's own port apart, they must be equal. */
export function isSameHost(
  name: string,
  { host, scheme }: Pick<CredentialQuery, "host" | "scheme">,
): boolean {
  const [one, other] = [name, host].map((each) => {
    // No part of a URL but host and port may be in it.
    const isHost = !/[@?#\\\s]/.test(each) && URL.canParse(`${scheme}//${each}`);
    return isHost ? new URL(`${scheme}//${each}`).host : undefined;
  });
  if (one === undefined || other === undefined) return false;
  return one === other || (DOCKER_HUB.has(one) && DOCKER_HUB.has(other));
}
