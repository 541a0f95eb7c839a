import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { findPlacesIn } from "../../../src/config/hosts_directory.ts";
import { failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();

async function write(name: string, text: string): Promise<void> {
  const path = join(directory(), name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

const find = (host: string, ...more: readonly string[]) =>
  findPlacesIn([directory(), ...more.map((name) => join(directory(), name))])(host);

describe("hosts.toml", () => {
  it("is read as containerd documents it", async () => {
    await write(
      "docker.io/hosts.toml",
      `
        server = "https://registry-1.docker.io"
        ca = "server-ca.pem"
        [host."https://mirror.example:5000"]
          capabilities = ["pull", "resolve"]
          ca = ["/etc/certs/test-1-ca.pem", "special.pem"]
          client = [["client.cert", "client.key"]]
          dial_timeout = "200ms"
          [host."https://mirror.example:5000".header]
            x-custom-1 = "custom header"
            X-Custom-2 = ["a", "b"]
        [host."http://127.0.0.1:30020"]
          capabilities = ["pull"]
          skip_verify = true
        [host."https://cache.example/v2/hub"]
          override_path = true
          client = "both.pem"
        [host."cache.example/prefix/"]
        [host."https://whole.example/v2"]
      `,
    );
    const { mirrors, server, tls } = await find("docker.io");
    const near = (name: string) => join(directory(), "docker.io", name);
    expect(server).toMatchObject({ baseUrl: new URL("https://registry-1.docker.io/v2/") });
    expect(tls).toEqual({ authorities: [near("server-ca.pem")] });
    expect(mirrors).toEqual([
      {
        baseUrl: new URL("https://mirror.example:5000/v2/"),
        pulls: true,
        resolves: true,
        headers: { "x-custom-1": "custom header", "x-custom-2": "a, b" },
        tls: {
          authorities: ["/etc/certs/test-1-ca.pem", near("special.pem")],
          client: { certificate: near("client.cert"), key: near("client.key") },
        },
      },
      { baseUrl: new URL("http://127.0.0.1:30020/v2/"), pulls: true, resolves: false, headers: {} },
      {
        baseUrl: new URL("https://cache.example/v2/hub/"),
        pulls: true,
        resolves: true,
        headers: {},
        tls: { authorities: [], client: { certificate: near("both.pem"), key: near("both.pem") } },
      },
      { baseUrl: new URL("https://cache.example/prefix/v2/"), pulls: true, resolves: true, headers: {} },
      { baseUrl: new URL("https://whole.example/v2/"), pulls: true, resolves: true, headers: {} },
    ]);
    expect(mirrors.map(({ baseUrl }) => baseUrl.href)).toEqual([
      "https://mirror.example:5000/v2/",
      "http://127.0.0.1:30020/v2/",
      "https://cache.example/v2/hub/",
      "https://cache.example/prefix/v2/",
      "https://whole.example/v2/",
    ]);
  });

  it("is looked for under the host with its port in both spellings, then under _default; the first folder counts", async () => {
    const first = async (host: string) => (await find(host, "later")).mirrors[0]?.baseUrl.hostname;
    await write("later/r.example:5000/hosts.toml", '[host."https://later"]');
    expect(await first("r.example:5000")).toBe("later");
    await write("_default/hosts.toml", '[host."https://default"]');
    expect(await first("r.example:5000")).toBe("default");
    await write("r.example:5000/hosts.toml", '[host."https://colon"]');
    expect(await first("r.example:5000")).toBe("colon");
    await write("r.example_5000_/hosts.toml", '[host."https://underscore"]');
    expect(await first("r.example:5000")).toBe("underscore");
    expect(await first("r.example")).toBe("default");
    // A folder for all of them names nobody.
    expect((await find("r.example:5000")).isNamed).toBe(true);
    expect((await find("r.example")).isNamed).toBeUndefined();
  });

  it("may be missing: then certificates count, as Docker has them", async () => {
    for (const name of ["b.crt", "a.crt", "client.cert", "client.key"]) await write(`r.example/${name}`, "");
    const near = (name: string) => join(directory(), "r.example", name);
    expect(await find("r.example")).toEqual({
      isNamed: true,
      mirrors: [],
      tls: {
        authorities: [near("a.crt"), near("b.crt")],
        client: { certificate: near("client.cert"), key: near("client.key") },
      },
    });
    expect(await find("other.example")).toEqual({ mirrors: [] });
  });

  it.each([
    ['[host."https://m.example"]\nskip_verify = true', "TLS is always verified"],
    ['[host."https://m.example"]\ncapabilities = "pull"', "capabilities"],
    ['[host."unix:///run/m.sock"]', "a place must be"],
    ['[host."https://user:secret@m.example"]', "a place must be"],
    ['[host."https://m.example"]\nclient = ["a.pem", "b.pem"]', "several client certificates"],
    ['[host."https://m.example".header]\nHost = "other"', '"Host"'],
    ['[host."https://m.example".header]\nx = "a\\r\\nb"', "no header can"],
    ['[host."https://m.example".header]\n"x y" = "a"', "header"],
    ["= 1", "line 1"],
    ["# " + "x".repeat(1024 * 1024), "over 1048576 bytes"],
  ])("%.60j is CONFIG_INVALID", async (text, said) => {
    await write("r.example/hosts.toml", text);
    const { code, message } = await failureOf(find("r.example"));
    expect(code).toBe("CONFIG_INVALID");
    expect(message).toContain(said);
    expect(message).not.toContain("secret");
  });

  it("a client certificate without its key is CONFIG_INVALID", async () => {
    await write("r.example/client.cert", "");
    expect((await failureOf(find("r.example"))).message).toContain('"client.key" is missing');
  });
});
