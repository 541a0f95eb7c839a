import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { proxiesOf } from "../../../src/config/registry_settings.ts";
import { loadSettings } from "../../../src/config/settings.ts";
import type { RegistrySettings } from "../../../src/registry/registries.ts";
import { failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();

async function write(name: string, text: string): Promise<string> {
  const path = join(directory(), name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  return path;
}

async function load(text: string, variables: Record<string, string> = {}): Promise<RegistrySettings> {
  const config = await write("config.toml", text);
  const environment = {
    isRoot: false,
    homeDirectory: directory(),
    variables,
    workingDirectory: "/",
    processId: 1,
  };
  return (await loadSettings({ config }, environment)).registries;
}

describe("[registry.host]", () => {
  it("says of one host what it needs", async () => {
    const { insecureHosts, network } = await load(`
      [registry]
      insecure = ["a.example"]
      [registry.host."Lab.example:5000"]
      insecure = true
      allow_private_redirects = true
      [registry.host."tls.example:443"]
      ca = "/etc/one.pem"
      client_cert = "/etc/client.pem"
      client_key = "/etc/client.key"
      [registry.host."docker.io"]
      ca = ["/etc/one.pem", "/etc/two.pem"]
    `);
    expect(insecureHosts).toEqual(["a.example", "lab.example:5000"]);
    expect(network?.allowPrivateRedirects).toEqual(["lab.example:5000"]);
    expect([...network?.tls ?? []]).toEqual([
      // As connections know them.
      ["tls.example", {
        authorities: ["/etc/one.pem"],
        client: { certificate: "/etc/client.pem", key: "/etc/client.key" },
      }],
      ["registry-1.docker.io", { authorities: ["/etc/one.pem", "/etc/two.pem"] }],
    ]);
  });

  it("names mirrors, which come before those of hosts.toml and are asked for content only", async () => {
    await write(".config/bootshim/certs.d/r.example/hosts.toml", '[host."https://second.example"]');
    const { findPlaces } = await load(
      '[registry.host."r.example"]\nmirrors = ["https://first.example/hub", "http://10.0.0.1:5000"]',
    );
    const { mirrors = [] } = await findPlaces?.("r.example") ?? {};
    expect(mirrors.map(({ baseUrl, pulls, resolves }) => [baseUrl.href, pulls, resolves])).toEqual([
      ["https://first.example/hub/v2/", true, false],
      ["http://10.0.0.1:5000/v2/", true, false],
      ["https://second.example/v2/", true, true],
    ]);
    expect((await findPlaces?.("other.example"))?.mirrors).toEqual([]);
  });

  it.each([
    ['[registry.host."https://r.example"]\ninsecure = true', "HOST[:PORT]"],
    ['[registry.host."r.example/os"]\ninsecure = true', "HOST[:PORT]"],
    ['[registry.host."r.example"]\nca = "relative.pem"', "must be an absolute path"],
    ['[registry.host."r.example"]\nskip_verify = true', "skip_verify"],
    ['[registry.host."r.example"]\nclient_cert = "/c.pem"', "must be set together"],
    ['[registry.host."r.example"]\nmirrors = ["ftp://m.example"]', "a place must be"],
    ['[registry.host."r.example"]\nmirrors = ["https://user:secret@m.example"]', "without user"],
    ['[policy]\nallow = ["r.example"]', "HOST/REPOSITORY"],
    ["[limits]\nmax_layers = 0", "max_layers"],
    ["[limits]\nmax_layer_bytes = 1.5", "max_layer_bytes"],
  ])("%j is CONFIG_INVALID", async (text, said) => {
    const { code, message } = await failureOf(load(text));
    expect(code).toBe("CONFIG_INVALID");
    expect(message).toContain(said);
    expect(message).not.toContain("secret");
  });
});

describe("proxiesOf", () => {
  it("reads both spellings, the upper-case first, and adds a scheme", () => {
    const { http, https, direct } = proxiesOf({
      http_proxy: "lower.example:3128",
      HTTPS_PROXY: "https://user:word@upper.example",
      https_proxy: "http://lower.example",
      no_proxy: " a.example, ,.b.example",
    });
    expect([http?.href, https?.href]).toEqual([
      "http://lower.example:3128/",
      "https://user:word@upper.example/",
    ]);
    expect(direct).toEqual(["a.example", ".b.example"]);
    expect(proxiesOf({ HTTP_PROXY: "" })).toEqual({ direct: [] });
  });

  it.each(["socks5://user:secret@p.example:1080", "http://user:secret@p example"])(
    "%j is CONFIG_INVALID, and the message holds no password",
    async (value) => {
      const failure = await failureOf(load("", { HTTPS_PROXY: value }));
      expect(failure.code).toBe("CONFIG_INVALID");
      expect(failure.message).toContain("HTTPS_PROXY");
      expect(failure.message).not.toContain("secret");
    },
  );
});
