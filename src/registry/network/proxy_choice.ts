import { BlockList, isIP } from "node:net";
import { addressClassOf } from "./address_class.ts";
import { literalAddress } from "./reach.ts";

/** The proxies between us and the world, as `HTTP_PROXY` and its kin name them. Their URLs may hold a password. */
export type ProxySettings = {
  /** For registries spoken to in plain HTTP. */
  readonly http?: URL;
  readonly https?: URL;
  /** Hosts that are reached directly: names with all below them, `.name` for only those below, addresses, networks, `*`. */
  readonly direct: readonly string[];
};

/**
 * The proxy a URL is reached through; undefined for none. Loopback is always reached directly: the proxy's own loopback
 * is another host.
 */
export function chooseProxy(url: URL, settings: ProxySettings): URL | undefined {
  const proxy = url.protocol === "https:" ? settings.https : settings.http;
  return proxy === undefined || isLoopbackHost(url) || settings.direct.some((entry) => matches(entry, url))
    ? undefined
    : proxy;
}

function isLoopbackHost(url: URL): boolean {
  const address = literalAddress(url);
  if (address !== undefined) return addressClassOf(address) === "loopback";
  return /(?:^|\.)localhost\.?$/.test(url.hostname);
}

function matches(entry: string, url: URL): boolean {
  const text = entry.trim().toLowerCase();
  if (text === "") return false;
  if (text === "*") return true;
  const address = literalAddress(url);
  if (text.includes("/")) return address !== undefined && isInNetwork(address, text);
  const [, host = text, port] = /^(\[[^\]]*\]|[^:]*):([0-9]+)$/.exec(text) ?? [];
  if (port !== undefined && port !== portOf(url)) return false;
  if (address !== undefined) return address === canonicalAddress(host);
  const name = url.hostname.replace(/\.$/, "");
  const domain = host.replace(/^\*(?=\.)/, "");
  return domain.startsWith(".") ? name.endsWith(domain) : name === domain || name.endsWith(`.${domain}`);
}

function portOf(url: URL): string {
  return url.port || (url.protocol === "https:" ? "443" : "80");
}

function canonicalAddress(text: string): string | undefined {
  const bare = text.replace(/^\[|\]$/g, "");
  return isIP(bare) === 0
    ? undefined
    : literalAddress(new URL(`http://${isIP(bare) === 6 ? `[${bare}]` : bare}`));
}

function isInNetwork(address: string, network: string): boolean {
  const [base = "", bits = ""] = network.split("/");
  const family = isIP(base);
  if (family === 0 || family !== isIP(address) || !/^[0-9]{1,3}$/.test(bits)) return false;
  if (Number(bits) > (family === 4 ? 32 : 128)) return false;
  const members = new BlockList();
  members.addSubnet(base, Number(bits), family === 4 ? "ipv4" : "ipv6");
  return members.check(address, family === 4 ? "ipv4" : "ipv6");
}
