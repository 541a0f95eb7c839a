import { execFile, execFileSync } from "node:child_process";
import { chmod, chown, mkdir, readFile, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { CredentialQuery } from "../../../../src/registry/auth/auth_file.ts";
import { type CredentialSettings, CredentialStore } from "../../../../src/registry/auth/credentials.ts";
import { codeOf, failureOf } from "../../../support/failures.ts";
import { randomWord } from "../../../support/random_word.ts";
import { useTemporaryDirectory } from "../../../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const word = randomWord();
const QUERY: CredentialQuery = { host: "reg.example", repository: "os/demo", scheme: "https:" };
const isRoot = process.geteuid?.() === 0;

async function write(name: string, content: unknown, mode = 0o600): Promise<string> {
  const path = join(directory(), name);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  await chmod(path, mode);
  return path;
}

const entry = (username: string) => ({ auth: Buffer.from(`${username}:${word}`).toString("base64") });
const login = (username: string) => ({ auths: { [QUERY.host]: entry(username) } });

async function whoIs(settings: CredentialSettings, query = QUERY): Promise<string | undefined> {
  const found = await new CredentialStore(settings).find(query);
  if (found?.kind === "identity-token") return `token ${found.token.reveal()}`;
  return found && `${found.username} ${found.password.reveal()}`;
}

/** A helper that does what a shell script says; `$HERE` is the test's directory. */
async function helper(name: string, script: string): Promise<Readonly<Record<string, string>>> {
  const bin = join(directory(), "bin");
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, `docker-credential-${name}`), `#!/bin/sh\nHERE='${directory()}'\n${script}\n`);
  await chmod(join(bin, `docker-credential-${name}`), 0o700);
  return { PATH: `${bin}:/usr/bin:/bin` };
}

const withHelper = (name: string) => new Map([[QUERY.host, { helper: name }]]);

describe("CredentialStore", () => {
  it("our own configuration comes first, then each file in order, until one knows the host", async () => {
    const files = [
      join(directory(), "missing.json"),
      join(directory(), "no-folder", "missing.json"),
      await write("other.json", { auths: { "other.example": entry("other") } }),
      await write("first.json", login("first")),
      await write("second.json", login("second")),
    ];
    expect(await whoIs({ files })).toBe(`first ${word}`);
    const passwordFile = await write("password", `${word}!\n`);
    const hosts = new Map([["REG.example:443", { username: "own", passwordFile }]]);
    expect(await whoIs({ files, hosts })).toBe(`own ${word}!`);
    expect(await whoIs({ files: files.slice(0, 3) })).toBeUndefined();
    expect(await whoIs({})).toBeUndefined();
  });

  it("AU22 what is rotated counts from the next question on", async () => {
    const files = [await write("a.json", login("before"))];
    const store = new CredentialStore({ files });
    expect(await store.find(QUERY)).toMatchObject({ username: "before" });
    await write("a.json", login("after"));
    expect(await store.find(QUERY)).toMatchObject({ username: "after" });
  });

  it("AU20 a file that everybody may read is used with a warning, told once", async () => {
    const warnings: string[] = [];
    const path = await write("a.json", login("robot"), 0o644);
    const store = new CredentialStore({ files: [path], onWarning: (message) => warnings.push(message) });
    expect(await store.find(QUERY)).toMatchObject({ username: "robot" });
    await store.find(QUERY);
    expect(warnings).toEqual([expect.stringContaining(path)]);
    expect(warnings[0]).not.toContain(word);
  });

  it.each([0o644, 0o604, 0o620])("AU20 a password file of ours with mode %o is refused", async (mode) => {
    const passwordFile = await write("password", word, mode);
    const failure = await failureOf(
      whoIs({ hosts: new Map([[QUERY.host, { username: "own", passwordFile }]]) }),
    );
    expect([failure.code, failure.details.remedy]).toEqual([
      "CREDENTIALS_INVALID",
      `chmod 600 ${passwordFile}`,
    ]);
  });

  it.each(["missing", "empty"])("AU20 a password file that is %s is CREDENTIALS_INVALID", async (kind) => {
    const passwordFile = kind === "empty" ? await write("password", "\n") : join(directory(), "none");
    const hosts = new Map([[QUERY.host, { username: "own", passwordFile }]]);
    expect(await codeOf(whoIs({ hosts }))).toBe("CREDENTIALS_INVALID");
  });

  const broken: readonly (readonly [string, (path: string) => Promise<void>])[] = [
    [
      "a symbolic link",
      async (path: string) => await symlink(await write("real.json", login("robot")), path),
    ],
    ["a FIFO", async (path) => void await promisify(execFile)("mkfifo", ["-m", "600", path])],
    ["a directory", async (path: string) => void await mkdir(path)],
    ["a socket's like", async (path: string) => await symlink("/dev/zero", path)],
    ["10 MB", async (path: string) => {
      await writeFile(path, "{}", { mode: 0o600 });
      await truncate(path, 10_000_000);
    }],
    ["no JSON", (path: string) => writeFile(path, `{"auths": ${word}`, { mode: 0o600 })],
    ["changeable by all", async (path: string) => {
      await writeFile(path, JSON.stringify(login("robot")));
      await chmod(path, 0o666);
    }],
    ...(isRoot
      ? [
        ["another user's", async (path: string) => {
          await writeFile(path, JSON.stringify(login("robot")), { mode: 0o600 });
          await chown(path, 65534, 65534);
        }] satisfies [string, (path: string) => Promise<void>],
      ]
      : []),
  ];
  it.each(broken)("AU20 an auth file that is %s is CREDENTIALS_INVALID", async (_name, make) => {
    const path = join(directory(), "auth.json");
    await make(path);
    const failure = await failureOf(whoIs({ files: [path] }));
    expect([failure.code, failure.retryable]).toEqual(["CREDENTIALS_INVALID", false]);
    expect(failure.message).toContain(path);
    expect(failure.message).not.toContain(word);
  });
});

describe("credential helpers", () => {
  it("are asked for the registry by stdin, and find nothing in their environment but what is theirs", async () => {
    const environment = await helper(
      "ok",
      `cat >"$HERE/asked"; echo "$@" >"$HERE/argv"; env >"$HERE/env"
echo '{"ServerURL":"x","Username":"robot","Secret":"${word}"}'`,
    );
    const helperEnvironment = { ...environment, HOME: "/home/robot" };
    expect(await whoIs({ hosts: withHelper("ok"), helperEnvironment })).toBe(`robot ${word}`);
    const read = (name: string) => readFile(join(directory(), name), "utf8");
    expect([await read("asked"), await read("argv")]).toEqual(["reg.example\n", "get\n"]);
    const names = (await read("env")).trim().split("\n").map((line) => line.split("=")[0]);
    expect(names.filter((name) => !["PWD", "OLDPWD", "SHLVL", "_"].includes(name ?? "")).sort()).toEqual([
      "HOME",
      "PATH",
    ]);
  });

  it("the one for the host comes before the one for all, and the file before none", async () => {
    const answer = (name: string) => `echo '{"Username":"${name}","Secret":"${word}"}'`;
    await helper("one", answer("one"));
    await helper("none", "echo credentials not found in native keychain; exit 1");
    const helperEnvironment = await helper("all", answer("all"));
    const ask = async (content: unknown) =>
      await whoIs({ files: [await write("a.json", content)], helperEnvironment });
    expect(await ask({ credsStore: "all", credHelpers: { "reg.example": "one" } })).toBe(`one ${word}`);
    expect(await ask({ credsStore: "all", credHelpers: { "x.example": "one" } })).toBe(`all ${word}`);
    expect(await ask({ credsStore: "none", ...login("written") })).toBe(`written ${word}`);
    expect(await ask({ credsStore: "none" })).toBeUndefined();
  });

  it("a helper may have an identity token, and knows Docker Hub by docker's name", async () => {
    const helperEnvironment = await helper(
      "hub",
      `cat >"$HERE/asked"; echo '{"Username":"<token>","Secret":"${word}"}'`,
    );
    const hosts = new Map([["docker.io", { helper: "hub" }]]);
    expect(await whoIs({ hosts, helperEnvironment }, { ...QUERY, host: "docker.io" })).toBe(`token ${word}`);
    expect(await readFile(join(directory(), "asked"), "utf8")).toBe("https://index.docker.io/v1/\n");
  });

  it.each([
    ["exits with 1", `echo "broken ${word}"; exit 1`],
    ["prints no JSON", `echo "${word}"`],
    ["prints half", `echo '{"Username":"${word}"}'`],
    ["prints nothing", "exit 0"],
    ["kills itself", "kill -9 $$"],
    ["prints 10 MB", `head -c 10000000 /dev/zero`],
    ["never stops printing", `cat /dev/zero`],
    ["does not read and prints a broken name", `echo '{"Username":"a:b","Secret":"${word}"}'`],
  ])("AU20 a helper that %s is CREDENTIALS_INVALID", async (_name, script) => {
    const helperEnvironment = await helper("bad", script);
    const failure = await failureOf(whoIs({ hosts: withHelper("bad"), helperEnvironment }));
    expect(failure.code).toBe("CREDENTIALS_INVALID");
    expect(failure.message + JSON.stringify(failure.details)).not.toContain(word);
  });

  it("AU20 a helper that hangs is ended with all that it started", async () => {
    const helperEnvironment = await helper(
      "slow",
      `trap '' TERM HUP; echo $$ >"$HERE/pids"; sleep 600 & echo $! >>"$HERE/pids"; wait; sleep 600`,
    );
    const failure = await failureOf(
      whoIs({ hosts: withHelper("slow"), helperEnvironment, helperTimeoutMs: 1_500 }),
    );
    expect([failure.code, failure.message]).toEqual([
      "CREDENTIALS_INVALID",
      expect.stringContaining("still running after 1500 ms"),
    ]);
    const pids = (await readFile(join(directory(), "pids"), "utf8")).trim().split("\n").map(Number);
    expect(pids).toHaveLength(2);
    for (const pid of pids) await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
  });

  it.each(["../../bin/sh", "/bin/sh", "a b", "", "-x", "a;b", "a\n", "x".repeat(65)])(
    "AU20 %j is no helper's name",
    async (name) => {
      const failure = await failureOf(whoIs({ hosts: withHelper(name) }));
      expect([failure.code, failure.message]).toEqual([
        "CREDENTIALS_INVALID",
        expect.stringContaining("no helper's name"),
      ]);
    },
  );

  it("AU20 a helper that is not installed is CREDENTIALS_INVALID", async () => {
    const failure = await failureOf(whoIs({ hosts: withHelper("none-such") }));
    expect([failure.code, failure.message]).toEqual([
      "CREDENTIALS_INVALID",
      expect.stringContaining("in PATH"),
    ]);
  });
});

/** A zombie has ended; whoever should wait for it is another's business. */
function isAlive(pid: number): boolean {
  try {
    const state = execFileSync("ps", ["-o", "state=", "-p", String(pid)], { encoding: "utf8" }).trim();
    return state !== "" && !state.startsWith("Z");
  } catch {
    return false;
  }
}
