import type { Settings } from "../config/settings.ts";
import { ShimError } from "../errors.ts";
import { parseReference } from "../image/reference.ts";
import { endpointOf } from "../registry/endpoint.ts";
import { addressClassOf } from "../registry/network/address_class.ts";
import { literalAddress } from "../registry/network/reach.ts";

/**
 * Refuses references by which a caller would have us, who may be root, reach what only this host can: an address that is
 * not public, and files of the host.
 *
 * @param named hosts that the configuration names, which are the administrator's word
 * @throws {ShimError} POLICY_DENIED; REFERENCE_INVALID
 */
export function checkCallerReference(text: string, named: ReadonlySet<string>): void {
  const reference = parseReference(text);
  if (reference.transport !== "docker") {
    throw denied(
      text,
      "files of this host are not a caller's to name",
      "push the image to a registry, or import it",
    );
  }
  const { host } = reference;
  // What no URL can hold is told where it is dialled.
  if (named.has(host) || !URL.canParse(`http://${host}`)) return;
  const url = new URL(`http://${host}`);
  const address = literalAddress(url);
  const isLocal = url.hostname === "localhost" || url.hostname.endsWith(".localhost");
  const addressClass = isLocal ? "loopback" : address === undefined ? "public" : addressClassOf(address);
  if (addressClass === "public") return;
  throw denied(
    text,
    `it is a ${addressClass} address that the configuration does not name`,
    `name it in the configuration: [registry.host."${host}"]`,
  );
}

/**
 * The settings under which callers' references are used: what the configuration does not name must be at a public address
 * when it is dialled, too, because any name can lead anywhere.
 */
export function settingsForCallers(settings: Settings): Settings {
  const { registries, api } = settings;
  const { insecureHosts, authorization } = registries;
  const tokenServers = [...authorization?.tokenServers?.values() ?? []].flat();
  const namedHosts = new Set([
    ...[...api.namedRegistries].filter((host) => URL.canParse(`http://${host}`)).map((host) =>
      endpointOf({ host, repository: "any" }, insecureHosts).baseUrl.host
    ),
    ...tokenServers.map((origin) => new URL(origin).host),
  ]);
  return { ...settings, registries: { ...registries, network: { ...registries.network, namedHosts } } };
}

function denied(text: string, why: string, remedy: string): ShimError {
  return new ShimError("POLICY_DENIED", `Cannot use ${JSON.stringify(text.slice(0, 200))}: ${why}`, {
    details: { remedy },
  });
}
