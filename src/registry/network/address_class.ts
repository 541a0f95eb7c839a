import { BlockList, isIP } from "node:net";

/**
 * What kind of network an address belongs to. `private` is every network that is somebody's own: RFC 1918, unique local,
 * and what carriers and overlay networks share. `metadata` is where clouds hand out credentials. `special` leads nowhere
 * a registry can be.
 */
export type AddressClass =
  | "public"
  | "loopback"
  | "link-local"
  | "private"
  | "metadata"
  | "unspecified"
  | "multicast"
  | "special";

/**
 * First match decides.
 *
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry
 * @see https://www.iana.org/assignments/iana-ipv6-special-registry
 */
const NETWORKS: readonly (readonly [AddressClass, readonly string[]])[] = [
  ["metadata", ["169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "fd00:ec2::254/128"]],
  ["loopback", ["127.0.0.0/8", "::1/128"]],
  ["unspecified", ["0.0.0.0/8", "::/128"]],
  ["link-local", ["169.254.0.0/16", "fe80::/10"]],
  ["private", [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fec0::/10",
  ]],
  ["multicast", ["224.0.0.0/4", "ff00::/8"]],
  // Teredo and the like carry packets to hosts that another address names.
  ["special", ["192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "100::/64", "2001::/23", "5f00::/16"]],
];

const RULES = NETWORKS.map(([addressClass, networks]) => {
  const members = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    members.addSubnet(address, Number(prefix), familyOf(address));
  }
  return { addressClass, members };
});

/** IPv6 networks whose addresses are another spelling of an IPv4 address, and in which of its 16-bit groups that stands. */
const TRANSLATED: readonly (readonly [RegExp, number])[] = [
  [/^0:0:0:0:0:(?:0|ffff):/, 6],
  [/^0:0:0:0:ffff:0:/, 6],
  [/^64:ff9b:(?:0:0:0:0|1:[^:]+:[^:]+:[^:]+):/, 6],
  [/^2002:/, 1],
];

/**
 * The class of an address as sockets spell it. What is no address is `special`: it is nothing to connect to.
 *
 * @param address with or without a zone, as in `fe80::1%eth0`
 */
export function addressClassOf(address: string): AddressClass {
  const [bare = ""] = address.split("%", 1);
  const family = isIP(bare);
  if (family === 0) return "special";
  const matched = RULES.find(({ members }) => members.check(bare, familyOf(bare)))?.addressClass;
  if (family === 4 || matched !== undefined) return matched ?? "public";
  const embedded = embeddedAddress(bare);
  return embedded === undefined ? "public" : addressClassOf(embedded);
}

/** The IPv4 address that an IPv6 address leads to by translation. */
function embeddedAddress(address: string): string | undefined {
  // The URL parser knows every spelling, and writes one.
  const groups = expand(new URL(`http://[${address}]`).hostname.slice(1, -1));
  const start = TRANSLATED.find(([network]) => network.test(groups.join(":")))?.[1];
  if (start === undefined) return undefined;
  return groups.slice(start, start + 2).flatMap((group) => {
    const value = parseInt(group, 16);
    return [value >> 8, value & 0xff];
  }).join(".");
}

function expand(address: string): readonly string[] {
  const [head = [], tail = []] = address.split("::").map((part) => part === "" ? [] : part.split(":"));
  return [...head, ...Array<string>(8 - head.length - tail.length).fill("0"), ...tail];
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 4 ? "ipv4" : "ipv6";
}
