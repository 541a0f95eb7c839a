import { ShimError } from "../errors.ts";
import { canonicalName, type Endpoint } from "./endpoint.ts";

/**
 * Which repositories may be used. A pattern is `HOST[:PORT]/REPOSITORY`, where a `*` in the host stands for any
 * characters of a host, and one in the repository for any characters at all.
 */
export type RepositoryPolicy = {
  /** When there are none, every repository is. */
  readonly allow: readonly string[];
  /** Stronger than `allow`. */
  readonly deny: readonly string[];
};

/**
 * Asked of the repository's one name, however the user spells the host.
 *
 * @throws {ShimError} POLICY_DENIED
 */
export function requireAllowed({ allow, deny }: RepositoryPolicy, endpoint: Endpoint): void {
  const name = canonicalName(endpoint);
  const denying = deny.find((pattern) => matchesPattern(pattern, name));
  if (denying !== undefined) refuse(name, `policy.deny has "${denying}"`);
  if (allow.length > 0 && !allow.some((pattern) => matchesPattern(pattern, name))) {
    refuse(name, "policy.allow has no pattern for it");
  }
}

/** @param name as {@link canonicalName} spells it */
export function matchesPattern(pattern: string, name: string): boolean {
  const [host, path] = splitHost(pattern.replace(/^([^/]*):443(?=\/)/, "$1"));
  const [nameHost, namePath] = splitHost(name);
  return globOf(host).test(nameHost) && globOf(path).test(namePath);
}

function splitHost(name: string): readonly [string, string] {
  const slash = name.indexOf("/");
  return slash === -1 ? [name, ""] : [name.slice(0, slash).toLowerCase(), name.slice(slash + 1)];
}

/** Neighbouring stars are one, so that no pattern makes matching slow for long. */
function globOf(glob: string): RegExp {
  const words = glob.split(/\*+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${words.join(".*")}$`);
}

function refuse(name: string, why: string): never {
  throw new ShimError("POLICY_DENIED", `Cannot use "${name}": ${why}`, {
    details: { remedy: "ask whoever configures this host to allow it" },
  });
}
