import { isAbsolute, join, resolve } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import type { AuthorizationSettings } from "../registry/auth/authorization.ts";
import type { HostCredentials } from "../registry/auth/credentials.ts";
import type { Environment } from "./settings.ts";

const tokenServer = z.string().transform((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isOrigin = url !== undefined && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`;
  if (isOrigin) return url.origin;
  context.addIssue('must be "https://HOST[:PORT]"');
  return z.NEVER;
});

/** What `[registry.host."HOST[:PORT]"]` may say of who we are there. */
export const credentialFields = {
  username: z.string().min(1).optional(),
  password_file: z.string().refine(isAbsolute, "must be an absolute path").optional(),
  /** The NAME of `docker-credential-NAME`. */
  credential_helper: z.string().min(1).optional(),
  /** Origins. The registry's own host name, and those beside it in DNS, need not be listed. */
  token_servers: z.array(tokenServer).default([]),
};

const credentialSchema = z.object(credentialFields);

/**
 * Who we are to registries: by our own configuration, by what `podman login` and `skopeo login` wrote, by docker's.
 *
 * @param hosts names in lower case
 * @throws {ShimError} CONFIG_INVALID
 */
export function authorizationSettingsOf(
  hosts: readonly (readonly [string, z.infer<typeof credentialSchema>])[],
  environment: Environment,
): Pick<AuthorizationSettings, "credentials" | "tokenServers"> {
  return {
    credentials: {
      hosts: new Map(hosts.flatMap(([name, host]): (readonly [string, HostCredentials])[] => {
        const own = ownCredentials(name, host);
        return own === undefined ? [] : [[name, own]];
      })),
      files: authFiles(environment),
      helperEnvironment: helperEnvironment(environment),
    },
    tokenServers: new Map(hosts.map(([name, { token_servers }]) => [name, token_servers])),
  };
}

function ownCredentials(
  name: string,
  { username, password_file, credential_helper }: z.infer<typeof credentialSchema>,
): HostCredentials | undefined {
  const refuse = (why: string) =>
    new ShimError("CONFIG_INVALID", `Cannot use [registry.host."${name}"]: ${why}`);
  if ((username === undefined) !== (password_file === undefined)) {
    throw refuse("username and password_file must be set together");
  }
  if (credential_helper !== undefined && username !== undefined) {
    throw refuse("it has both a password_file and a credential_helper");
  }
  if (credential_helper !== undefined) return { helper: credential_helper };
  if (username === undefined || password_file === undefined) return undefined;
  return { username, passwordFile: password_file };
}

/**
 * Where other tools keep logins, as they look for them: the containers tools' file of this session, then of this user,
 * then docker's.
 *
 * @see https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
 */
function authFiles({ variables, homeDirectory, isRoot, workingDirectory }: Environment): readonly string[] {
  const read = (name: string) => variables[name] || undefined;
  const named = read("REGISTRY_AUTH_FILE");
  const runtime = read("XDG_RUNTIME_DIR");
  const session = runtime === undefined
    ? "/run/containers/0/auth.json"
    : join(runtime, "containers/auth.json");
  const hasSession = runtime !== undefined || isRoot;
  const containers = named === undefined
    ? [
      ...(hasSession ? [session] : []),
      join(read("XDG_CONFIG_HOME") ?? join(homeDirectory, ".config"), "containers/auth.json"),
    ]
    : [named];
  const docker = join(read("DOCKER_CONFIG") ?? join(homeDirectory, ".docker"), "config.json");
  return [...containers, docker].map((path) => resolve(workingDirectory, path));
}

/** What credential helpers need to find their own stores. */
const HELPER_VARIABLES =
  /^(?:HOME|PATH|USER|LOGNAME|LANG|LC_ALL|TMPDIR|XDG_[A-Z_]+|DBUS_SESSION_BUS_ADDRESS|GNUPGHOME|GPG_TTY|PASSWORD_STORE_[A-Z_]+|DOCKER_CONFIG|AWS_[A-Z0-9_]+|GOOGLE_[A-Z0-9_]+|CLOUDSDK_[A-Z0-9_]+|AZURE_[A-Z0-9_]+|(?:HTTPS?|NO)_PROXY|(?:https?|no)_proxy)$/;

function helperEnvironment({ variables, homeDirectory }: Environment): Readonly<Record<string, string>> {
  const kept = Object.entries(variables).flatMap(([name, value]) =>
    value !== undefined && HELPER_VARIABLES.test(name) ? [[name, value] as const] : []
  );
  return { HOME: homeDirectory, PATH: "/usr/local/bin:/usr/bin:/bin", ...Object.fromEntries(kept) };
}
