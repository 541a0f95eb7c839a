import type { AddressClass } from "../../src/registry/network/address_class.ts";
import { addressClassOf } from "../../src/registry/network/address_class.ts";
import type { NetworkSettings } from "../../src/registry/network/connections.ts";

/** Loopback addresses that stand for what a test cannot have: hosts on the internet, and on somebody's own network. */
export const PUBLIC_ADDRESS = "127.11.0.1";
export const PRIVATE_ADDRESS = "127.12.0.1";

const STANDS_FOR: ReadonlyMap<string, AddressClass> = new Map([
  [PUBLIC_ADDRESS, "public"],
  [PRIVATE_ADDRESS, "private"],
]);

/**
 * A network of names that leads nowhere else than to this host. Names that are not in it do not exist.
 *
 * @param names the addresses of each; a function is asked at every look-up
 */
export function namedNetwork(
  names: Readonly<Record<string, readonly string[] | (() => readonly string[])>>,
): Pick<NetworkSettings, "lookup" | "addressClassOf"> & { readonly lookedUp: string[] } {
  const lookedUp: string[] = [];
  return {
    lookedUp,
    lookup: (hostname) => {
      lookedUp.push(hostname);
      const entry = names[hostname];
      const addresses = typeof entry === "function" ? entry() : entry;
      if (addresses !== undefined) {
        return Promise.resolve(
          addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
        );
      }
      return Promise.reject(
        Object.assign(new Error(`getaddrinfo ENOTFOUND ${hostname}`), { code: "ENOTFOUND" }),
      );
    },
    addressClassOf: (address) => STANDS_FOR.get(address) ?? addressClassOf(address),
  };
}
