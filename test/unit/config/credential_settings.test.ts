import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Environment, loadSettings } from "../../../src/config/settings.ts";
import { failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();

async function load(text: string, changes: Partial<Environment> = {}) {
  const config = join(directory(), "config.toml");
  await writeFile(config, text);
  const environment = {
    isRoot: false,
    homeDirectory: "/home/u",
    variables: {},
    workingDirectory: "/here",
    processId: 1,
  };
  return (await loadSettings({ config }, { ...environment, ...changes })).registries.authorization;
}

describe("who we are to registries", () => {
  it("is what a host's table says", async () => {
    const settings = await load(`
      [registry.host."A.example:5000"]
      username = "robot"
      password_file = "/etc/password"
      token_servers = ["https://SSO.example:443", "http://10.0.0.1:81/"]
      [registry.host."b.example"]
      credential_helper = "ecr-login"
      [registry.host."c.example"]
      insecure = true
    `);
    expect([...settings?.credentials?.hosts ?? []]).toEqual([
      ["a.example:5000", { username: "robot", passwordFile: "/etc/password" }],
      ["b.example", { helper: "ecr-login" }],
    ]);
    expect(settings?.tokenServers?.get("a.example:5000")).toEqual([
      "https://sso.example",
      "http://10.0.0.1:81",
    ]);
  });

  it.each([
    ['username = "robot"', "must be set together"],
    ['password_file = "/etc/password"', "must be set together"],
    ['username = "robot"\npassword_file = "/etc/password"\ncredential_helper = "pass"', "both"],
    ['username = "robot"\npassword_file = "password"', "absolute"],
    ['password = "secret"', "Unrecognized"],
    ['token_servers = ["sso.example"]', "https://HOST"],
    ['token_servers = ["https://sso.example/token"]', "https://HOST"],
    ['token_servers = ["https://u:p@sso.example"]', "https://HOST"],
    ['token_servers = ["ftp://sso.example"]', "https://HOST"],
  ])("%s is CONFIG_INVALID", async (lines, why) => {
    const failure = await failureOf(load(`[registry.host."a.example"]\n${lines}\n`));
    expect([failure.code, failure.message]).toEqual(["CONFIG_INVALID", expect.stringContaining(why)]);
    expect(failure.message).not.toMatch(/secret"|u:p/);
  });

  const OWN = "/home/u/.config/containers/auth.json";
  const DOCKER = "/home/u/.docker/config.json";
  it.each([
    [{}, [OWN, DOCKER]],
    [{ variables: { XDG_RUNTIME_DIR: "/run/user/7" } }, ["/run/user/7/containers/auth.json", OWN, DOCKER]],
    [{ isRoot: true }, ["/run/containers/0/auth.json", OWN, DOCKER]],
    [{ variables: { XDG_CONFIG_HOME: "/x", DOCKER_CONFIG: "/d" } }, [
      "/x/containers/auth.json",
      "/d/config.json",
    ]],
    [{ variables: { REGISTRY_AUTH_FILE: "a.json", XDG_RUNTIME_DIR: "/run/user/7" } }, [
      "/here/a.json",
      DOCKER,
    ]],
    [{ variables: { REGISTRY_AUTH_FILE: "", DOCKER_CONFIG: "" } }, [OWN, DOCKER]],
  ])("is looked for in the places of other tools: %j", async (changes, files) => {
    expect((await load("", changes))?.credentials?.files).toEqual(files);
  });

  it("AU19 helpers find what they need in their environment, and nothing else of ours", async () => {
    const variables = {
      PATH: "/p",
      DBUS_SESSION_BUS_ADDRESS: "unix:x",
      AWS_PROFILE: "p",
      GNUPGHOME: "/g",
      https_proxy: "http://proxy",
      MY_PASSWORD: "secret",
      BOOTSHIM_ROOT: "/r",
      LD_PRELOAD: "/evil.so",
    };
    expect((await load("", { variables }))?.credentials?.helperEnvironment).toEqual({
      HOME: "/home/u",
      PATH: "/p",
      DBUS_SESSION_BUS_ADDRESS: "unix:x",
      AWS_PROFILE: "p",
      GNUPGHOME: "/g",
      https_proxy: "http://proxy",
    });
  });
});
