import { isIP } from "node:net";
import { type ErrorCode, ShimError } from "../../errors.ts";
import type { AddressClass } from "./address_class.ts";

/**
 * Where a request may go. A registry may send us to its storage and its token server, but not to what only this host can
 * reach: the user named the registry, nobody named those.
 */
export type SentBy = {
  /** The registry whose word led to this request. */
  readonly registry: URL;
  readonly as: "redirect" | "realm";
};

/** The networks a request may be connected to; undefined when the user, or the configuration, named the host. */
export type Reach = ReadonlySet<AddressClass> | undefined;

const CODES: Readonly<Record<SentBy["as"], ErrorCode>> = {
  redirect: "REDIRECT_REFUSED",
  realm: "REALM_REFUSED",
};

/** Never opened by what the registry itself is: nothing there is a registry's storage. */
const NEVER: ReadonlySet<AddressClass> = new Set(["metadata", "unspecified", "multicast", "special"]);

/** @param ownClasses where the registry itself was reached */
export function reachBeside(ownClasses: Iterable<AddressClass>): ReadonlySet<AddressClass> {
  return new Set<AddressClass>(["public", ...[...ownClasses].filter((each) => !NEVER.has(each))]);
}

/** Of hosts that somebody else than the user named. */
export const PUBLIC_REACH: ReadonlySet<AddressClass> = reachBeside([]);

/** What a configuration opens that allows a registry to send us to private networks. */
export const PRIVATE_REACH: ReadonlySet<AddressClass> = reachBeside(["loopback", "link-local", "private"]);

/** Thrown where a connection is made, which does not know what it is for. */
export class AddressRefused extends Error {
  readonly address: string;
  readonly addressClass: AddressClass;

  constructor(address: string, addressClass: AddressClass) {
    super(`"${address}" is a ${addressClass} address`);
    this.name = "AddressRefused";
    this.address = address;
    this.addressClass = addressClass;
  }

  /**
   * @param action completes "Cannot …"
   * @param host `HOST[:PORT]` that led to the address
   */
  toShimError(action: string, { host, sentBy }: { host: string; sentBy: SentBy | undefined }): ShimError {
    if (sentBy === undefined) {
      return new ShimError(
        "POLICY_DENIED",
        `Cannot ${action}: "${host}" leads to ${this.addressClass} address "${this.address}", and the configuration does not name it`,
        { cause: this, details: { remedy: `name it in the configuration: [registry.host."${host}"]` } },
      );
    }
    const { registry, as } = sentBy;
    const noun = as === "redirect" ? "redirected to" : "sent for a token to";
    return new ShimError(
      CODES[as],
      `Cannot ${action}: ${noun} ${this.addressClass} address "${this.address}", where the registry is not`,
      {
        cause: this,
        details: {
          remedy:
            `if the registry is right to do so, set allow_private_redirects = true under [registry.host."${registry.host}"]`,
        },
      },
    );
  }
}

/** @throws {AddressRefused} */
export function requireWithin(reach: Reach, address: string, addressClass: AddressClass): void {
  if (reach !== undefined && !reach.has(addressClass)) throw new AddressRefused(address, addressClass);
}

/** The address, when a URL names one instead of a host. The URL parser has made every odd spelling canonical. */
export function literalAddress({ hostname }: URL): string | undefined {
  const address = hostname.replace(/^\[|\]$/g, "");
  return isIP(address) === 0 ? undefined : address;
}
