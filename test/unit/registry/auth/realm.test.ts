import { describe, expect, it } from "vitest";
import { acceptRealm } from "../../../../src/registry/auth/realm.ts";
import { refusalOf } from "../../../support/failures.ts";

const accept = (realm: string, registry: string, changes: {
  allowed?: readonly string[];
  insecureHosts?: readonly string[];
} = {}) => {
  const url = new URL(registry);
  return acceptRealm(realm, {
    registry: url,
    host: url.host,
    allowed: [],
    insecureHosts: [],
    action: "test",
    ...changes,
  });
};
const refusal = (...wish: Parameters<typeof accept>) => refusalOf(() => accept(...wish));

describe("acceptRealm", () => {
  it.each([
    ["https://registry.example.com/token", "https://registry.example.com"],
    ["https://registry.example.com:8443/token", "https://registry.example.com"],
    ["https://auth.docker.io/token", "https://registry-1.docker.io"],
    ["https://gitlab.com/jwt/auth", "https://registry.gitlab.com"],
    ["https://sso.gitlab.example.org/jwt/auth", "https://registry.gitlab.example.org"],
    ["https://auth.example.com/token", "https://example.com"],
    ["https://auth.shop.co.uk/token", "https://registry.shop.co.uk"],
    ["https://REGISTRY.Example.COM/token", "https://registry.example.com"],
    ["http://localhost:5001/auth", "http://127.0.0.1:5000"],
    ["http://127.0.0.1:5001/auth", "http://localhost:5000"],
    ["https://registry.lab:8443/auth", "http://registry.lab:5000"],
    ["http://registry.lab:5001/auth", "http://registry.lab:5000"],
    ["https://10.0.0.7:8443/auth", "https://10.0.0.7:5000"],
  ])("AU03 %s is of the same house as %s", (realm, registry) => {
    expect(accept(realm, registry)).toEqual({ url: new URL(realm), isListed: false });
  });

  it.each([
    ["https://evil.example.net/token", "https://registry.example.com"],
    ["https://registry.example.com.evil.net/token", "https://registry.example.com"],
    ["https://evilexample.com/token", "https://registry.example.com"],
    ["https://example.com.evil/token", "https://registry.example.com"],
    ["https://registry.example.com./token", "https://registry.example.com"],
    ["https://com/token", "https://example.com"],
    ["https://evil.com/token", "https://example.com"],
    ["https://evil.co.uk/token", "https://registry.co.uk"],
    ["https://evil.com.au/token", "https://registry.com.au"],
    ["https://auth/token", "https://registry"],
    ["https://10.0.0.8/token", "https://10.0.0.7"],
    ["https://9.10.0.0.7.example/token", "https://10.0.0.7"],
    ["https://[2001:db8::1]/token", "https://[2001:db8::2]"],
    ["https://xn--exmple-cua.com/token", "https://registry.example.com"],
    ["https://registry.ex\u0430mple.com/token", "https://registry.example.com"],
  ])("AU03 AU17 %s is REALM_REFUSED for %s", (realm, registry) => {
    const { code, details } = refusal(realm, registry);
    expect([code, details.remedy]).toEqual(["REALM_REFUSED", expect.stringContaining("token_servers")]);
  });

  it.each([
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "0x7f.1",
    "localhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "10.1.2.3",
    "192.168.1.1",
    "172.16.0.1",
    "0.0.0.0",
    "0",
  ])("AU05 %s is REALM_REFUSED for a public registry", (host) => {
    expect(refusal(`https://${host}/token`, "https://registry.example.com").code).toBe("REALM_REFUSED");
  });

  it.each([
    ["http://registry.example.com/token", "https://registry.example.com"],
    ["http://auth.example.com/token", "https://registry.example.com"],
    ["http://auth.lab.example/token", "http://registry.lab.example:5000"],
    ["ftp://registry.example.com/token", "https://registry.example.com"],
    ["file:///etc/shadow", "https://registry.example.com"],
    ["unix:///run/docker.sock", "https://registry.example.com"],
    ["https://user:word@registry.example.com/token", "https://registry.example.com"],
  ])("AU04 %s is REALM_REFUSED for %s", (realm, registry) => {
    const { code, message } = refusal(realm, registry);
    expect(code).toBe("REALM_REFUSED");
    expect(message).not.toContain("word");
  });

  it("AU04 plain http is accepted where the user has listed the host, or the origin", () => {
    const wish = ["http://auth.lab.example:81/token", "http://registry.lab.example:5000"] as const;
    expect(accept(...wish, { insecureHosts: ["auth.lab.example:81"] }).isListed).toBe(false);
    expect(accept(...wish, { allowed: ["http://auth.lab.example:81"] }).isListed).toBe(true);
  });

  it("AU03 what the user has listed is accepted, by its whole origin", () => {
    const allowed = ["https://sso.example.net"];
    expect(accept("https://sso.example.net/token#x", "https://registry.example.com", { allowed })).toEqual({
      url: new URL("https://sso.example.net/token"),
      isListed: true,
    });
    for (
      const realm of ["https://sso.example.net:444/", "http://sso.example.net/", "https://x.sso.example.net/"]
    ) {
      expect(refusal(realm, "https://registry.example.com", { allowed }).code).toBe("REALM_REFUSED");
    }
  });

  it.each(["", "token", "//x", "https://", "https://[::1"])("a realm of %j is REGISTRY_PROTOCOL", (realm) => {
    expect(refusal(realm, "https://registry.example.com").code).toBe("REGISTRY_PROTOCOL");
  });
});
