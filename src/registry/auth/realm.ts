import { isIP } from "node:net";
import { ShimError } from "../../errors.ts";

/** What a registry's word about its token server is measured by. */
export type RealmRules = {
  /** The registry that names the realm. */
  readonly registry: URL;
  /** What the user calls it. */
  readonly host: string;
  /** Origins that the user accepts for this registry besides what the rules accept. */
  readonly allowed: readonly string[];
  /** `HOST[:PORT]` that the user accepts in plain HTTP. */
  readonly insecureHosts: readonly string[];
  /** Completes "Cannot …". */
  readonly action: string;
};

/** An accepted token server. */
export type Realm = {
  readonly url: URL;
  /** The user listed it: then it is not the registry's word alone that leads there. */
  readonly isListed: boolean;
};

/**
 * Decides whether a token server may be asked, and so be told who we are. It must be what the user listed, or as safe as
 * the registry and of the same house: the registry's own host name, or one beside or above it in DNS ({@link
 * isSameHouse}). Which networks it may be on is judged once more where it is dialled.
 *
 * @throws {ShimError} REALM_REFUSED; REGISTRY_PROTOCOL when it is no URL
 */
export function acceptRealm(
  realm: string,
  { registry, host, allowed, insecureHosts, action }: RealmRules,
): Realm {
  if (!URL.canParse(realm)) {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the realm of its challenge is not a URL`);
  }
  const url = new URL(realm);
  const refuse = (why: string, remedy?: string): never => {
    throw new ShimError(
      "REALM_REFUSED",
      `Cannot ${action}: its token server is "${url.protocol}//${url.host}", ${why}`,
      { details: { realm: url.origin, ...(remedy === undefined ? {} : { remedy }) } },
    );
  };
  if (url.protocol !== "https:" && url.protocol !== "http:") refuse("expected https");
  if (url.username !== "" || url.password !== "") refuse("and its URL holds a user's name");
  url.hash = "";
  if (allowed.includes(url.origin)) return { url, isListed: true };
  const remedy =
    `if the registry is right to do so, add "${url.origin}" to token_servers under [registry.host."${host}"]`;
  const isSameName = url.hostname === registry.hostname ||
    (isLoopbackName(url.hostname) && isLoopbackName(registry.hostname));
  if (!isSameName && !isSameHouse(url.hostname, registry.hostname)) {
    refuse(`which has nothing to do with "${host}"`, remedy);
  }
  if (url.protocol === "http:") {
    if (registry.protocol === "https:") refuse("expected https as of the registry");
    if (!isSameName && !insecureHosts.includes(url.host)) refuse("expected https", remedy);
  }
  return { url, isListed: false };
}

export function isLoopbackName(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.[0-9]+){3}$/.test(hostname);
}

/**
 * Whether two host names share all of the registry's domain: `auth.docker.io` beside `registry-1.docker.io`, `gitlab.com`
 * above `registry.gitlab.com`. Without the list of public suffixes, which ages, the shared part must have two labels, and
 * three where the second may be a registry of names itself, as in `co.uk` and `com.au`: two letters preceded by at most
 * three. Addresses have no house.
 */
function isSameHouse(hostname: string, registryName: string): boolean {
  const names = [hostname, registryName];
  if (names.some((name) => name.startsWith("[") || isIP(name) !== 0 || name.endsWith("."))) return false;
  const [host, registry] = [hostname.split("."), registryName.split(".")] as const;
  const parent = registry.slice(1);
  const tail = (labels: readonly string[], count: number) => labels.slice(-count).join(".");
  const shares = (domain: readonly string[]) =>
    host.length >= domain.length && tail(host, domain.length) === domain.join(".");
  // A registry that is the domain itself has its servers below it.
  return [registry, parent].some((domain) => isPrivateDomain(domain) && shares(domain));
}

function isPrivateDomain(labels: readonly string[]): boolean {
  const [second = "", top = ""] = labels.slice(-2);
  return labels.length >= (top.length === 2 && second.length <= 3 ? 3 : 2);
}
