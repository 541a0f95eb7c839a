import { isAbsolute } from "node:path";
import { z } from "zod";
import { parseDuration } from "../agent/quantity.ts";
import { ShimError } from "../errors.ts";
import { dialledHost } from "../registry/endpoint.ts";
import type { Place } from "../registry/mirror/place.ts";
import type { ProxySettings } from "../registry/network/proxy_choice.ts";
import type { TlsFiles } from "../registry/network/tls_trust.ts";
import type { RegistrySettings } from "../registry/registries.ts";
import { authorizationSettingsOf, credentialFields } from "./credential_settings.ts";
import { findPlacesIn } from "./hosts_directory.ts";
import { readPlaceUrl } from "./hosts_file.ts";
import type { Environment } from "./settings.ts";

const absolutePath = z.string().refine(isAbsolute, "must be an absolute path");
/** One, or several. */
const paths = z.preprocess((value) => typeof value === "string" ? [value] : value, z.array(absolutePath));
const hostName = z.string().refine(
  (name) => !/[/@?#\s]/.test(name) && URL.canParse(`http://${name}`),
  'must be "HOST[:PORT]"',
);
const pattern = z.string().regex(/^[^/\s]+\/\S+$/, 'must be "HOST/REPOSITORY", with * for any characters');

const LONGEST_DEADLINE_MS = 24 * 86_400_000;

function readDuration(text: string, context: z.RefinementCtx): number {
  try {
    const durationMs = parseDuration(text, "it as");
    if (durationMs > 0 && durationMs <= LONGEST_DEADLINE_MS) return durationMs;
    context.addIssue("must be more than nothing, and at most 24 days");
  } catch (error) {
    context.addIssue(error instanceof Error ? error.message : String(error));
  }
  return z.NEVER;
}

/** `[registry.host."HOST[:PORT]"]`. */
const hostSchema = z.strictObject({
  /** Plain HTTP. */
  insecure: z.boolean().default(false),
  ca: paths.default([]),
  client_cert: absolutePath.optional(),
  client_key: absolutePath.optional(),
  allow_private_redirects: z.boolean().default(false),
  mirrors: z.array(z.string()).default([]),
  /** Whether a wrong Docker-Content-Digest ends the pull, or is told and ignored. */
  digest_header: z.enum(["strict", "warn"]).default("strict"),
  ...credentialFields,
});

/** `[registry]`. */
export const registrySchema = z.strictObject({
  /** `HOST[:PORT]` of registries that may be spoken to in plain HTTP. Loopback always may. */
  insecure: z.array(z.string()).default([]),
  /** Folders of `HOST/hosts.toml`, the first that knows a host counts. */
  hosts_directories: z.array(absolutePath).optional(),
  host: z.record(hostName, hostSchema).default({}),
  /** Longest time of one pull. */
  deadline: z.string().transform((text, context) => readDuration(text, context)).optional(),
  /** Layers that are fetched at once, of all images together. */
  parallel_layers: z.int().min(1).max(64).optional(),
  /** Connections that one large layer may be fetched over. */
  connections_per_layer: z.int().min(1).max(32).optional(),
}).prefault({});

/** `[policy]`. */
export const policySchema = z.strictObject({
  allow: z.array(pattern).default([]),
  deny: z.array(pattern).default([]),
}).prefault({});

/**
 * @param file the `[registry]` and `[policy]` tables
 * @param hostsDirectory where `HOST/hosts.toml` is looked for, unless the file says otherwise
 * @throws {ShimError} CONFIG_INVALID
 */
export function registrySettingsOf(
  file: { readonly registry: z.infer<typeof registrySchema>; readonly policy: z.infer<typeof policySchema> },
  { environment, hostsDirectory }: { readonly environment: Environment; readonly hostsDirectory: string },
): RegistrySettings {
  const hosts = Object.entries(file.registry.host).map(([name, host]) => [name.toLowerCase(), host] as const);
  const tls = new Map(hosts.flatMap(([name, host]): (readonly [string, TlsFiles])[] => {
    const files = tlsFilesOf(name, host);
    return files ? [[dialledHost(name), files]] : [];
  }));
  const mirrors = new Map(
    hosts.map(([name, host]) => [name, host.mirrors.map((url) => mirrorAt(name, url))]),
  );
  const findInDirectories = findPlacesIn(file.registry.hosts_directories ?? [hostsDirectory]);
  return {
    insecureHosts: [
      ...file.registry.insecure,
      ...hosts.filter(([, { insecure }]) => insecure).map(([name]) => name),
    ],
    network: {
      tls,
      allowPrivateRedirects: hosts.filter(([, host]) => host.allow_private_redirects)
        .map(([name]) => dialledHost(name)),
      proxies: proxiesOf(environment.variables),
    },
    limits: {
      ...(file.registry.deadline === undefined ? {} : { deadlineMs: file.registry.deadline }),
      ...(file.registry.parallel_layers === undefined
        ? {}
        : { transfersAtOnce: file.registry.parallel_layers }),
      ...(file.registry.connections_per_layer === undefined
        ? {}
        : { connectionsPerBlob: file.registry.connections_per_layer }),
    },
    ignoredDigestHeaders: hosts.filter(([, host]) => host.digest_header === "warn").map(([name]) => name),
    authorization: authorizationSettingsOf(hosts, environment),
    findPlaces: async (host) => {
      const found = await findInDirectories(host);
      return { ...found, mirrors: [...mirrors.get(host) ?? [], ...found.mirrors] };
    },
    policy: file.policy,
  };
}

function tlsFilesOf(
  name: string,
  { ca, client_cert, client_key }: z.infer<typeof hostSchema>,
): TlsFiles | undefined {
  if ((client_cert === undefined) !== (client_key === undefined)) {
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot use [registry.host."${name}"]: client_cert and client_key must be set together`,
    );
  }
  if (ca.length === 0 && client_cert === undefined) return undefined;
  return {
    authorities: ca,
    ...(client_cert === undefined || client_key === undefined
      ? {}
      : { client: { certificate: client_cert, key: client_key } }),
  };
}

/** Content only: what a tag means is asked of the registry. A `hosts.toml` can say more. */
function mirrorAt(name: string, url: string): Place {
  return {
    baseUrl: readPlaceUrl(url, { source: `[registry.host."${name}"]` }),
    pulls: true,
    resolves: false,
    headers: {},
  };
}

/**
 * The proxies that the environment names, in upper case or lower, as other programs read it.
 *
 * @throws {ShimError} CONFIG_INVALID, without the URL: it may hold a password
 */
export function proxiesOf(variables: Readonly<Record<string, string | undefined>>): ProxySettings {
  const read = (name: string) => variables[name] || variables[name.toLowerCase()] || undefined;
  const http = proxyUrl("HTTP_PROXY", read("HTTP_PROXY"));
  const https = proxyUrl("HTTPS_PROXY", read("HTTPS_PROXY"));
  return {
    ...(http ? { http } : {}),
    ...(https ? { https } : {}),
    direct: (read("NO_PROXY") ?? "").split(",").map((entry) => entry.trim()).filter((entry) => entry !== ""),
  };
}

function proxyUrl(name: string, value: string | undefined): URL | undefined {
  if (value === undefined) return undefined;
  const text = /^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new ShimError(
    "CONFIG_INVALID",
    `Cannot use ${name}: it is ${url ? `a "${url.protocol}" URL` : "no URL"}, must be http://HOST:PORT`,
  );
}
