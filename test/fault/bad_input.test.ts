/** What goes wrong on the line, each with its code: the cache stays as it was, and the next call works. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CODES } from "../../src/errors.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

let work: string;
let registry: RegistryServer;
let proxy: RegistryProxy;
let root: string;
let kernelDigest: string;

/** Every file of the cache with its bytes and mode, so that "as before" means byte by byte. Locks are not content. */
async function snapshot(directory: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (path.startsWith(join(directory, "locks/"))) continue;
    const { mode } = await stat(path);
    const bytes = entry.isFile()
      ? createHash("sha256").update(await readFile(path)).digest("hex")
      : "directory";
    files[path.slice(directory.length)] = `${mode.toString(8)} ${bytes}`;
  }
  return files;
}

/** Runs a prepare that must fail with the code, compares the cache, then lets the same wish succeed. */
async function expectFailure(
  code: keyof typeof CODES,
  argv: readonly string[],
  options: { worksAfterwards?: boolean; keepsPartials?: boolean } = {},
): Promise<void> {
  const before = await snapshot(root);
  const ended = await bootshim(["prepare", ...argv, "-o", "json"], { root });
  expect(JSON.parse(ended.stderr)).toMatchObject({
    error: { code, retryable: CODES[code].retryable, message: expect.stringMatching(/^Cannot /) },
  });
  expect(ended).toMatchObject({ exitCode: CODES[code].exit, stdout: "" });
  const after = Object.entries(await snapshot(root)).filter(([path]) =>
    !(options.keepsPartials && path.startsWith("/ingest/"))
  );
  expect(Object.fromEntries(after)).toEqual(before);
  proxy.tamper(() => "none");
  if (options.worksAfterwards ?? true) {
    expect((await bootshim(["prepare", ...argv, "-o", "json"], { root })).exitCode).toBe(0);
  }
}

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-bad-"));
  registry = await startRegistryServer();
  proxy = await startRegistryProxy(registry.host);
  const kernel = await makeGuestPart("kernel");
  const initramfs = await makeGuestPart("initramfs", { word: randomWord() });
  kernelDigest = createHash("sha256").update(await readFile(kernel)).digest("hex");
  const maker = { root: join(work, "maker") };
  for (const host of [registry.host, proxy.host]) {
    await bootshimJson([
      "build",
      "--tag",
      `${host}/os/one:1`,
      "--config",
      `arch=amd64,kernel=${kernel},initramfs=${initramfs}`,
    ], maker);
  }
  await bootshimJson(["push", `${registry.host}/os/one:1`], maker);
});

beforeEach(async () => {
  root = await mkdtemp(join(work, "root-"));
  // The cache exists and holds another image, which no failure may harm.
  await bootshimJson([
    "build",
    "--tag",
    "127.0.0.1:1/os/other:1",
    "--config",
    `arch=amd64,kernel=${await makeGuestPart("kernel")}`,
    "-q",
  ], { root: `${root}/cache` });
  root = `${root}/cache`;
  // That image brought the kernel; the one under test is to be fetched whole.
  await rm(join(root, "images/blobs/sha256", kernelDigest));
});

afterAll(async () => {
  await proxy.stop();
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

describe("a layer", () => {
  it("with one flipped byte: CONTENT_DIGEST_MISMATCH", async () => {
    proxy.tamper((path) => path.endsWith(kernelDigest) ? "flip" : "none");
    await expectFailure("CONTENT_DIGEST_MISMATCH", [`${proxy.host}/os/one:1`]);
  });

  it("whose body always ends early: CONTENT_SIZE_MISMATCH", async () => {
    proxy.tamper((path) => path.endsWith(kernelDigest) ? "truncate" : "none");
    // More of it may come another time.
    await expectFailure("CONTENT_SIZE_MISMATCH", [`${proxy.host}/os/one:1`], { keepsPartials: true });
  });

  it("that the registry has lost: REGISTRY_NOT_FOUND", async () => {
    proxy.tamper((path) => path.endsWith(kernelDigest) ? "not-found" : "none");
    // The other layers came, and nothing speaks against them.
    await expectFailure("REGISTRY_NOT_FOUND", [`${proxy.host}/os/one:1`], { keepsPartials: true });
  });
});

describe("a manifest", () => {
  it("with one flipped byte: CONTENT_DIGEST_MISMATCH", async () => {
    proxy.tamper((path) => path.includes("/manifests/") ? "flip" : "none");
    await expectFailure("CONTENT_DIGEST_MISMATCH", [`${proxy.host}/os/one:1`]);
  });

  it("without any layer of ours: LAYER_MISSING", async () => {
    const layout = join(work, "foreign");
    await makeForeignLayout(layout);
    await expectFailure("LAYER_MISSING", [`oci:${layout}:1`], { worksAfterwards: false });
  });
});

describe("a wish", () => {
  it("for a platform the image does not have: PLATFORM_NOT_FOUND", async () => {
    await expectFailure("PLATFORM_NOT_FOUND", [`${proxy.host}/os/one:1`, "--arch", "arm64"], {
      worksAfterwards: false,
    });
  });

  it("for a boot mode the image cannot do: BOOT_MODE_IMPOSSIBLE, before any transfer", async () => {
    await expectFailure("BOOT_MODE_IMPOSSIBLE", [`${proxy.host}/os/one:1`, "--boot", "disk"], {
      worksAfterwards: false,
    });
  });

  it.each([
    "debian",
    "Host.example/UPPER:1",
    "host.example/a:b c",
    "host.example/a@sha256:short",
    "ftp://host.example/a",
  ])(
    "that is no reference, %j: REFERENCE_INVALID",
    async (reference) => await expectFailure("REFERENCE_INVALID", [reference], { worksAfterwards: false }),
  );

  it("for a tag that is not there: REGISTRY_NOT_FOUND", async () => {
    await expectFailure("REGISTRY_NOT_FOUND", [`${proxy.host}/os/one:none`], { worksAfterwards: false });
  });

  it("for something not cached, with --pull never: IMAGE_NOT_FOUND", async () => {
    await expectFailure("IMAGE_NOT_FOUND", [`${proxy.host}/os/one:1`, "--pull", "never"], {
      worksAfterwards: false,
    });
  });
});

it("a registry that nobody answers at: REGISTRY_UNAVAILABLE", async () => {
  await expectFailure("REGISTRY_UNAVAILABLE", ["127.0.0.1:9/os/one:1"], { worksAfterwards: false });
});

it("a command line that is wrong: REQUEST_INVALID, one line, no stack", async () => {
  for (
    const argv of [["prepare"], ["prepare", "a.example/b:1", "--memory", "lots"], ["frobnicate"], [
      "images",
      "--nope",
    ], ["prepare", "a.example/b:1", "--boot", "floppy"]]
  ) {
    const ended = await bootshim(argv, { root });
    expect([ended.exitCode, ended.stdout]).toEqual([64, ""]);
    expect(ended.stderr).toMatch(/^bootshim: REQUEST_INVALID: Cannot [^\n]+\n$/);
  }
});

/** A container image, as far as a manifest tells: nothing in it boots. */
async function makeForeignLayout(directory: string): Promise<void> {
  const blob = async (text: string, mediaType: string) => {
    const digest = createHash("sha256").update(text).digest("hex");
    await writeFile(join(directory, "blobs/sha256", digest), text);
    return { mediaType, digest: `sha256:${digest}`, size: text.length };
  };
  await mkdir(join(directory, "blobs/sha256"), { recursive: true });
  const config = await blob("{}", "application/vnd.oci.image.config.v1+json");
  const layer = await blob("no disk", "application/vnd.oci.image.layer.v1.tar+gzip");
  const manifest = await blob(
    JSON.stringify({ schemaVersion: 2, config, layers: [layer] }),
    "application/vnd.oci.image.manifest.v1+json",
  );
  await writeFile(join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(
    join(directory, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ ...manifest, annotations: { "org.opencontainers.image.ref.name": "1" } }],
    }),
  );
}
