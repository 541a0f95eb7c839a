/** The provider's examples of README.md, run as they stand there against a real service; and its tables of settings. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { fileSchema } from "../../src/config/settings.ts";
import { bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { randomWord } from "../support/random_word.ts";
import { codeBlocks } from "../support/readme_blocks.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));
const readme = readFileSync(join(CHECKOUT, "README.md"), "utf8");
const run = promisify(execFile);

let work: string;
let registry: RegistryServer;
let service: ServiceProcess;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-provider-"));
  registry = await startRegistryServer();
  const maker = { root: join(work, "maker") };
  const reference = `${registry.host}/os/linux:1`;
  const parts = `arch=amd64,kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart(
    "initramfs",
  )},rootfs=${await makeGuestPart("rootfs-ext4", { word: randomWord() })}`;
  await bootshimJson(["build", "--tag", reference, "--config", parts], maker);
  await bootshimJson(["push", reference], maker);
  const config = join(work, "config.toml");
  await writeFile(config, `[registry]\ninsecure = ["${registry.host}"]\n`);
  service = await startService({
    root: join(work, "root"),
    environment: { BOOTSHIM_CONFIG: config },
    argv: ["--connect", "test:///default"],
  });
});

afterAll(async () => {
  await service.stop();
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

function example(language: string): string {
  const block = codeBlocks(readme).find((each) => each.language === language);
  if (!block) throw new Error(`README.md has no block marked ${language}`);
  return block.lines.join("\n")
    .replaceAll("/run/bootshim/bootshim.sock", service.socketPath)
    .replaceAll("registry.example.org", registry.host);
}

describe("the provider of README.md", () => {
  it("in TypeScript takes a disk, defines, and releases", async () => {
    const file = join(work, "provider.ts");
    const client = new URL("../../src/api/client.ts", import.meta.url).href;
    await writeFile(file, example("ts provider").replace('"bootshim/client"', JSON.stringify(client)));
    const deno = join(CHECKOUT, "scripts/deno");
    const { stdout, stderr } = await run(deno, ["run", "-A", "--config", join(CHECKOUT, "deno.json"), file]);
    expect(stdout).toMatch(/^\/\S+\/machines\/pool-1\/disk\.\w+\n<devices>[^]*<disk [^]*shut off\n$/);
    expect(stderr).toMatch(/^pulling \d+ \d+$/m);
    expect((await service.ask("/v1/machines")).json).toEqual([]);
  });

  it("with curl does the same", async () => {
    const { stdout } = await run("bash", ["-euo", "pipefail", "-c", example("sh provider")], { cwd: work });
    expect(stdout).toMatch(/event: operation\.succeeded\n/);
    expect(stdout).toMatch(/"state":"succeeded".*<disk .*"state":"shut off"\}\{"id":"pool-1"\}$/s);
    expect((await service.ask("/v1/machines")).json).toEqual([]);
  });
});

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null;

/** `a.b` for each key that the configuration file may hold; a key of any name is left out, as its table spells it. */
function keysOf(schema: unknown, before = ""): string[] {
  if (!isObject(schema) || !isObject(schema["properties"])) {
    const each = isObject(schema) ? schema["additionalProperties"] : undefined;
    return isObject(each) ? keysOf(each, "… .") : [before.slice(0, -1)];
  }
  return Object.entries(schema["properties"]).flatMap(([name, inner]) => keysOf(inner, `${before}${name}.`));
}

describe("the settings of README.md", () => {
  const keys = keysOf(z.toJSONSchema(fileSchema, { io: "input", unrepresentable: "any" }));
  it.each(keys)("%s has its row", (key) => {
    expect(keys.length).toBeGreaterThan(20);
    // One registry's stand below its name.
    expect(readme).toMatch(key.startsWith("… .") ? `\`.${key.slice(3)}\`` : `\`${key}\``);
  });
});
