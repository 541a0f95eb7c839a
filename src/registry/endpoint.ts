import { isIPv4 } from "node:net";
import { ShimError } from "../errors.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import type { RegistryReference } from "../image/reference.ts";

/** One repository of one registry, and where it answers. */
export type Endpoint = {
  /** `HOST/REPOSITORY`, for messages. */
  readonly name: string;
  /** Ends in `/v2/REPOSITORY/`. */
  readonly baseUrl: URL;
};

/** The registry that answers for a name which itself serves a web site. */
const DOCKER_HUB_NAMES: ReadonlySet<string> = new Set(["docker.io", "index.docker.io"]);
const DOCKER_HUB_REGISTRY = "registry-1.docker.io";

/** `HOST[:PORT]` as URLs have it, of what really answers for a name in references. */
export function dialledHost(host: string): string {
  return DOCKER_HUB_NAMES.has(host) ? DOCKER_HUB_REGISTRY : new URL(`https://${host}`).host;
}

/** `HOST[:PORT]/REPOSITORY`, the same for every spelling of it. */
export function canonicalName({ name, baseUrl }: Endpoint): string {
  const host = baseUrl.host === DOCKER_HUB_REGISTRY ? "docker.io" : baseUrl.host;
  return `${host}/${name.slice(name.indexOf("/") + 1)}`;
}

/** distribution-spec v1.1.1, "Pulling manifests". */
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/**
 * Decides the scheme by the host's name alone: plain HTTP for loopback and for hosts listed as insecure, HTTPS for all
 * others. Nothing that a server does can change it, so TLS cannot be talked down.
 *
 * @param repository its words are trusted: they come from `parseReference`
 * @param insecureHosts exact `HOST[:PORT]` names as in references
 * @throws {ShimError} REFERENCE_INVALID when the host cannot stand in a URL, as `1.2.3.256` cannot
 */
export function endpointOf(
  { host, repository }: Pick<RegistryReference, "host" | "repository">,
  insecureHosts: readonly string[] = [],
): Endpoint {
  if (!URL.canParse(`http://${host}`)) {
    throw new ShimError(
      "REFERENCE_INVALID",
      `Cannot connect to "${host}": it is neither a host name nor an address`,
    );
  }
  const isInsecure = isLoopback(host) || insecureHosts.some((listed) => listed.toLowerCase() === host);
  const dialled = DOCKER_HUB_NAMES.has(host) ? DOCKER_HUB_REGISTRY : host;
  return {
    name: `${host}/${repository}`,
    baseUrl: new URL(`${isInsecure ? "http" : "https"}://${dialled}/v2/${repository}/`),
  };
}

/** 127.0.0.0/8, [::1] and localhost, whatever way they are spelt: the URL parser makes `127.1` and `[0::1]` canonical. */
function isLoopback(host: string): boolean {
  const { hostname } = new URL(`http://${host}`);
  return hostname === "localhost" || hostname === "[::1]" ||
    (isIPv4(hostname) && hostname.startsWith("127."));
}

/**
 * @throws {ShimError} REFERENCE_INVALID when it is no tag; MANIFEST_INVALID, DIGEST_UNSUPPORTED when it is a broken
 *   digest: neither may become a path
 */
export function manifestPath(endpoint: Endpoint, tagOrDigest: string): string {
  const digest = digestIn(tagOrDigest);
  if (digest === undefined && !isTag(tagOrDigest)) {
    throw new ShimError(
      "REFERENCE_INVALID",
      `Cannot ask "${endpoint.name}" for ${
        JSON.stringify(tagOrDigest.slice(0, 200))
      }: it is neither a tag nor a digest`,
    );
  }
  return `manifests/${tagOrDigest}`;
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** The digest, when the word is one; a tag cannot hold a colon. */
export function digestIn(tagOrDigest: string): Digest | undefined {
  return tagOrDigest.includes(":") ? parseDigest(tagOrDigest) : undefined;
}

export function blobPath(digest: Digest): string {
  return `blobs/${digest}`;
}

export function uploadsUrl(endpoint: Endpoint): URL {
  return new URL("blobs/uploads/", endpoint.baseUrl);
}
