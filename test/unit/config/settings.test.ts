import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { NO_BUDGET } from "../../../src/agent/agent_context.ts";
import { type Environment, loadSettings, type SettingFlags } from "../../../src/config/settings.ts";
import { failureOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const word = randomWord();

/** An ordinary user at home in the test's directory. */
function user(variables: Environment["variables"] = {}): Environment {
  return {
    isRoot: false,
    homeDirectory: directory(),
    variables,
    workingDirectory: "/work dir",
    processId: 1,
  };
}

async function write(text: string, name = "config.toml"): Promise<string> {
  const path = join(directory(), name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  return path;
}

async function refuse(text: string, why: string, details: Record<string, unknown>): Promise<void> {
  const path = await write(text);
  const { code, message, details: told } = await failureOf(loadSettings({ config: path }, user()));
  expect({ code, message, details: told }).toEqual({
    code: "CONFIG_INVALID",
    message: `Cannot use configuration "${path}" ${why}`,
    details: { path, ...details },
  });
}

describe("loadSettings", () => {
  it("has defaults for an ordinary user, under the home directory", async () => {
    expect(await loadSettings({}, user())).toMatchObject({
      rootDirectory: `${directory()}/.local/share/bootshim`,
      cacheBudget: NO_BUDGET,
      registries: { insecureHosts: [] },
      libvirtUri: "qemu:///session",
      configHome: `${directory()}/.config`,
    });
  });

  it("has defaults for root, under /var/lib", async () => {
    const path = await write("");
    const root = { ...user({ XDG_DATA_HOME: "/elsewhere" }), isRoot: true };
    expect(await loadSettings({ config: path }, root)).toMatchObject({
      rootDirectory: "/var/lib/bootshim",
      cacheBudget: NO_BUDGET,
      registries: { insecureHosts: [] },
      libvirtUri: "qemu:///system",
      configHome: `${directory()}/.config`,
    });
  });

  it("reads every key of the file", async () => {
    const path = await write(
      `root = "/srv/${word}"\n[registry]\ninsecure = ["h.io:5000", "i.io"]\n[libvirt]\nconnect = "test:///default"\n` +
        `[cache]\nmax_bytes = "20GiB"\nkeep_free_bytes = 5000\nmin_age = "36h"\n`,
    );
    expect(await loadSettings({ config: path }, user())).toMatchObject({
      rootDirectory: `/srv/${word}`,
      cacheBudget: { maxBytes: 20 * 2 ** 30, keepFreeBytes: 5000, minAgeMs: 36 * 3_600_000 },
      registries: { insecureHosts: ["h.io:5000", "i.io"] },
      libvirtUri: "test:///default",
      configHome: `${directory()}/.config`,
    });
  });

  it.each<[string, SettingFlags, Record<string, string>, string]>([
    ["the flag", { root: "/flag" }, { BOOTSHIM_ROOT: "/variable" }, "/flag"],
    ["the variable", {}, { BOOTSHIM_ROOT: "/variable" }, "/variable"],
    ["the file", {}, {}, "/file"],
    ["the file, when the variable is empty", {}, { BOOTSHIM_ROOT: "" }, "/file"],
    ["a relative flag, from the working directory", { root: "x/../y" }, {}, "/work dir/y"],
    ["a relative variable, from the working directory", {}, { BOOTSHIM_ROOT: "y" }, "/work dir/y"],
  ])("takes the root from %s", async (_name, flags, variables, rootDirectory) => {
    const config = await write('root = "/file"\n[libvirt]\nconnect = "file:///"\n');
    expect(await loadSettings({ config, ...flags }, user(variables))).toMatchObject({
      rootDirectory,
      cacheBudget: NO_BUDGET,
      registries: { insecureHosts: [] },
      libvirtUri: "file:///",
      configHome: `${directory()}/.config`,
    });
  });

  it("takes the connection from the flag before the file", async () => {
    const config = await write('[libvirt]\nconnect = "file:///"\n');
    expect((await loadSettings({ config, connect: "flag:///" }, user())).libvirtUri).toBe("flag:///");
  });

  it.each([
    ["/data", "/data/bootshim"],
    ["", "HOME/.local/share/bootshim"],
    ["relative", "HOME/.local/share/bootshim"],
  ])("heeds XDG_DATA_HOME %j as the XDG specification asks", async (value, rootDirectory) => {
    expect((await loadSettings({}, user({ XDG_DATA_HOME: value }))).rootDirectory).toBe(
      rootDirectory.replace("HOME", directory()),
    );
  });

  it("looks for the file where the flag, then the variable, then XDG_CONFIG_HOME, then the home directory say", async () => {
    const flag = await write('root = "/flag"', "flag.toml");
    const variable = await write('root = "/variable"', "variable.toml");
    await write('root = "/xdg"', "xdg/bootshim/config.toml");
    await write('root = "/home"', ".config/bootshim/config.toml");
    const XDG_CONFIG_HOME = join(directory(), "xdg");
    const roots = [
      await loadSettings({ config: flag }, user({ BOOTSHIM_CONFIG: variable, XDG_CONFIG_HOME })),
      await loadSettings({}, user({ BOOTSHIM_CONFIG: variable, XDG_CONFIG_HOME })),
      await loadSettings({}, user({ BOOTSHIM_CONFIG: "", XDG_CONFIG_HOME })),
      await loadSettings({}, user({ XDG_CONFIG_HOME: "" })),
      await loadSettings({}, user({ XDG_CONFIG_HOME: "xdg" })),
    ].map((settings) => settings.rootDirectory);
    expect(roots).toEqual(["/flag", "/variable", "/xdg", "/home", "/home"]);
  });

  it("refuses a file that was asked for and is missing", async () => {
    const path = join(directory(), word);
    for (const [flags, variables] of [[{ config: path }, {}], [{}, { BOOTSHIM_CONFIG: path }]] as const) {
      const { code, message } = await failureOf(loadSettings(flags, user(variables)));
      expect(code).toBe("CONFIG_INVALID");
      expect(message.startsWith(`Cannot read configuration "${path}": ENOENT`)).toBe(true);
    }
  });

  it("refuses a default file that is there and cannot be read", async () => {
    const path = join(directory(), ".config/bootshim/config.toml");
    await mkdir(path, { recursive: true });
    const { code, message } = await failureOf(loadSettings({}, user()));
    expect(code).toBe("CONFIG_INVALID");
    expect(message.startsWith(`Cannot read configuration "${path}": EISDIR`)).toBe(true);
  });

  it.each([
    ["an open string", 'a = 1\nroot = "/x\n', 2],
    ["a key twice", 'root = "/x"\n\nroot = "/y"\n', 3],
    ["no value", "[registry]\ninsecure\n", 2],
  ])("tells the line of %s", async (_name, text, line) => {
    const path = await write(text);
    const { code, message } = await failureOf(loadSettings({ config: path }, user()));
    expect(code).toBe("CONFIG_INVALID");
    expect(message.startsWith(`Cannot read configuration "${path}" line ${line}: Invalid TOML document: `))
      .toBe(true);
    expect(message).not.toContain("\n");
  });

  it.each([
    ["at the top", '# roots\nroots = "/x"\n', 2, "roots", 'Unrecognized key: "roots"'],
    [
      "in a table",
      '[registry]\ninsecure = []\n\n  insecur = ["h.io"]\n',
      4,
      "registry.insecur",
      'Unrecognized key: "insecur"',
    ],
    [
      "with dots",
      "root = '/x'\nregistry.insecur = []\n",
      2,
      "registry.insecur",
      'Unrecognized key: "insecur"',
    ],
    [
      "in an inline table",
      "registry = { insecur = [] }\n",
      1,
      "registry.insecur",
      'Unrecognized key: "insecur"',
    ],
    ["as a table", "\n[registries]\nx = 1\n", 2, "registries", 'Unrecognized key: "registries"'],
    ["as a table in a table", "\n[ qemu.x ]\n", 2, "qemu", 'Unrecognized key: "qemu"'],
    ["as an array of tables", "\n\n[[hosts]]\n", 3, "hosts", 'Unrecognized key: "hosts"'],
    ["in quotes", "\"Root\" = '/x'\n", 1, "Root", 'Unrecognized key: "Root"'],
    ["of every prototype", "__proto__ = 1\n", 1, "__proto__", 'Unrecognized key: "__proto__"'],
  ])("refuses an unknown key %s, with its line", async (_name, text, line, key, why) => {
    await refuse(text, `line ${line}: key "${key}", ${why}`, { key, line });
  });

  it.each([
    ["a root that is a number", "root = 5\n", 1, "root", "Invalid input: expected string, received number"],
    ["a relative root", "\nroot = 'x'\n", 2, "root", "must be an absolute path"],
    [
      "a registry that is a word",
      "registry = 'h.io'\n",
      1,
      "registry",
      "Invalid input: expected object, received string",
    ],
    [
      "a number among the registries",
      "[registry]\ninsecure = ['h.io', 5]\n",
      2,
      "registry.insecure.1",
      "Invalid input: expected string, received number",
    ],
    [
      "a word of the second registry, with the first one's beside it",
      "[registry.host.a]\ninsecure = true\n\n[registry.host.b]\ninsecure = 'x'\n",
      5,
      "registry.host.b.insecure",
      "Invalid input: expected boolean, received string",
    ],
    [
      "a registry whose name has dots",
      "[registry.host.\"a.example\"]\n[registry.host.'b.example:1']\n# insecure =\n'insecure' = 1\n",
      4,
      "registry.host.b.example:1.insecure",
      "Invalid input: expected boolean, received number",
    ],
    [
      "a word that is a registry's name, too",
      "[registry.host.min_age]\ninsecure = true\n[cache]\nmin_age = 5\n",
      4,
      "cache.min_age",
      "Invalid input: expected string, received number",
    ],
  ])("refuses %s", async (_name, text, line, key, why) => {
    await refuse(text, `line ${line}: key "${key}", ${why}`, { key, line });
  });
});
