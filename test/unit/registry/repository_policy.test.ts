import { describe, expect, it } from "vitest";
import { endpointOf } from "../../../src/registry/endpoint.ts";
import { Registries } from "../../../src/registry/registries.ts";
import { matchesPattern, requireAllowed } from "../../../src/registry/repository_policy.ts";

describe("matchesPattern", () => {
  it.each([
    ["r.example/os/*", "r.example/os/linux"],
    ["r.example/os/*", "r.example/os/a/b"],
    ["r.example/os/linux", "r.example/os/linux"],
    ["R.example/os", "r.example/os"],
    ["r.example:443/os", "r.example/os"],
    ["r.example:5000/*", "r.example:5000/os"],
    ["*.example/*", "r.example/os"],
    ["*/os/*", "r.example:5000/os/a"],
    ["*/**", "r.example/os"],
    ["r.example/*/linux", "r.example/a/b/linux"],
    ["[::1]:5000/*", "[::1]:5000/os"],
  ])("%s is for %s", (pattern, name) => {
    expect(matchesPattern(pattern, name)).toBe(true);
  });

  it.each([
    ["r.example/os/*", "r.example/os"],
    ["r.example/os/*", "r.example/other/os/linux"],
    ["r.example/os", "r.example/os2"],
    ["r.example/os", "r.example:5000/os"],
    ["r.example/*", "rxexample/os"],
    ["*.example/*", "evil.test/r.example/os"],
    ["*.example/*", "r.example.evil.test/os"],
    ["r.example*/*", "evil.test/r.example/x"],
  ])("%s is not for %s", (pattern, name) => {
    expect(matchesPattern(pattern, name)).toBe(false);
  });
});

describe("requireAllowed", () => {
  const verdict = (name: string, policy: { allow?: string[]; deny?: string[] }) => {
    const slash = name.indexOf("/");
    const endpoint = endpointOf({ host: name.slice(0, slash), repository: name.slice(slash + 1) });
    try {
      requireAllowed({ allow: [], deny: [], ...policy }, endpoint);
      return "allowed";
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it("allows everything when nothing is said, and only what is allowed when something is", () => {
    expect(verdict("r.example/os", {})).toBe("allowed");
    expect(verdict("r.example/os", { allow: ["r.example/*"] })).toBe("allowed");
    expect(verdict("s.example/os", { allow: ["r.example/*"] })).toBe("POLICY_DENIED");
  });

  it("deny is stronger than allow", () => {
    const policy = { allow: ["r.example/*"], deny: ["r.example/secret/*"] };
    expect(verdict("r.example/secret/a", policy)).toBe("POLICY_DENIED");
    expect(verdict("r.example/open/a", policy)).toBe("allowed");
  });

  it.each([
    ["index.docker.io/library/debian", "docker.io/*"],
    ["registry-1.docker.io/library/debian", "docker.io/*"],
    ["r.example:443/os", "r.example/*"],
    ["2130706433:5000/os", "127.0.0.1:5000/*"],
    ["127.1:5000/os", "127.0.0.1:5000/*"],
  ])("no other spelling of a host passes by: %s is %s", (name, pattern) => {
    expect(verdict(name, { deny: [pattern] })).toBe("POLICY_DENIED");
  });

  it("is asked when a repository is opened", async () => {
    await using registries = new Registries({ policy: { allow: ["r.example/os/*"], deny: [] } });
    expect(() => registries.repository({ host: "r.example", repository: "os/a" })).not.toThrow();
    expect(() => registries.repository({ host: "r.example", repository: "other" })).toThrow(/policy\.allow/);
  });
});
