import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressClassOf } from "../../../src/registry/network/address_class.ts";
import { literalAddress } from "../../../src/registry/network/reach.ts";

describe("addressClassOf", () => {
  it.each([
    ["8.8.8.8", "public"],
    ["93.184.216.34", "public"],
    ["126.255.255.255", "public"],
    ["128.0.0.1", "public"],
    ["172.15.255.255", "public"],
    ["172.32.0.0", "public"],
    ["100.63.255.255", "public"],
    ["100.128.0.0", "public"],
    ["2606:4700::1111", "public"],
    ["::ffff:8.8.8.8", "public"],
    ["64:ff9b::808:808", "public"],
    ["127.0.0.1", "loopback"],
    ["127.255.255.255", "loopback"],
    ["::1", "loopback"],
    ["0:0:0:0:0:0:0:1", "loopback"],
    ["::ffff:127.0.0.1", "loopback"],
    ["::ffff:7f00:1", "loopback"],
    ["::ffff:0:127.0.0.1", "loopback"],
    ["::127.0.0.1", "loopback"],
    ["64:ff9b::7f00:1", "loopback"],
    ["64:ff9b:1::127.0.0.1", "loopback"],
    ["2002:7f00:1::", "loopback"],
    ["10.0.0.0", "private"],
    ["172.16.0.1", "private"],
    ["172.31.255.255", "private"],
    ["192.168.1.1", "private"],
    ["100.64.0.1", "private"],
    ["fc00::1", "private"],
    ["fdff::1", "private"],
    ["fec0::1", "private"],
    ["::ffff:10.1.2.3", "private"],
    ["2002:c0a8:101::5", "private"],
    ["169.254.1.1", "link-local"],
    ["fe80::1", "link-local"],
    ["fe80::1%eth0", "link-local"],
    ["169.254.169.254", "metadata"],
    ["::ffff:169.254.169.254", "metadata"],
    ["fd00:ec2::254", "metadata"],
    ["100.100.100.200", "metadata"],
    ["0.0.0.0", "unspecified"],
    ["0.1.2.3", "unspecified"],
    ["::", "unspecified"],
    ["::ffff:0.0.0.0", "unspecified"],
    ["224.0.0.1", "multicast"],
    ["239.255.255.255", "multicast"],
    ["ff02::1", "multicast"],
    ["240.0.0.1", "special"],
    ["255.255.255.255", "special"],
    ["198.18.0.1", "special"],
    ["2001:0:1::1", "special"],
    ["", "special"],
    ["localhost", "special"],
    ["127.1", "special"],
  ])("%s is %s", (address, expected) => {
    expect(addressClassOf(address)).toBe(expected);
  });

  it("an IPv4 address is the same in every IPv6 spelling of it", () => {
    fc.assert(fc.property(fc.ipV4(), (address) => {
      const expected = addressClassOf(address);
      expect(addressClassOf(`::ffff:${address}`)).toBe(expected);
      expect(addressClassOf(`64:ff9b::${address}`)).toBe(expected);
    }));
  });

  it("every address has a class", () => {
    fc.assert(fc.property(fc.ipV6(), (address) => {
      expect(addressClassOf(address)).toMatch(/^[a-z-]+$/);
    }));
  });
});

describe("literalAddress", () => {
  it.each([
    ["http://2130706433/", "127.0.0.1"],
    ["http://0177.1/", "127.0.0.1"],
    ["http://0x7f.1:80/", "127.0.0.1"],
    ["http://127.1/", "127.0.0.1"],
    ["http://127.0.0.1./", "127.0.0.1"],
    ["http://%31%32%37.0.0.1/", "127.0.0.1"],
    ["http://\u{2460}\u{2461}\u{2466}.0.0.1/", "127.0.0.1"],
    ["http://[::ffff:127.0.0.1]/", "::ffff:7f00:1"],
    ["http://127.0.0.1.nip.io/", undefined],
    ["http://localhost/", undefined],
  ])("%s: %s", (url, expected) => {
    expect(literalAddress(new URL(url))).toBe(expected);
  });
});
