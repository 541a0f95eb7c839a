/**
 * Making images and moving them with the real command, a real registry, and skopeo as the second opinion.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { bootshim, bootshimJson, type CommandOptions } from "../support/bootshim_command.ts";
import { randomBlob } from "../support/blobs.ts";
import { arm64Image } from "../support/disk_bytes.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { randomInitramfs, randomKernel } from "../support/os_image.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import { entryOf, ShapeBuilder, writeShape } from "../support/shape_builder.ts";
import { streamOf } from "../support/streams.ts";
import { linux } from "../support/whole_indexes.ts";

const run = promisify(execFile);
/** Random layer sets tried; the long lane asks for more. */
const RANDOM_SETS = Number(process.env["BOOTSHIM_TRANSFER_RUNS"] ?? 3);

const builtDocument = z.object({
  reference: z.string(),
  digest: z.string(),
  manifests: z.array(z.object({ digest: z.string(), architecture: z.string(), variant: z.string() })),
});
const pushedDocument = z.object({
  digest: z.string(),
  transferredBytes: z.number(),
  mountedBytes: z.number(),
  tags: z.array(z.object({ tag: z.string(), digest: z.string() })),
});

let work: string;
let registry: RegistryServer;
let proxy: RegistryProxy;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-transfer-"));
  registry = await startRegistryServer();
  proxy = await startRegistryProxy(registry.host);
});

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
  await rm(work, { recursive: true, force: true });
});

const newRoot = () => ({ root: join(work, randomWord()) });

async function newFile(bytes: Uint8Array, name = randomWord()): Promise<string> {
  const path = join(work, name);
  await writeFile(path, bytes);
  return path;
}

async function build(
  options: { root: string },
  { name, configs, flags = [] }: { name: string; configs: readonly string[]; flags?: readonly string[] },
) {
  const argv = ["build", "--tag", name, ...configs.flatMap((config) => ["--config", config]), ...flags];
  return builtDocument.parse(await bootshimJson(argv, options));
}

async function push(options: { root: string }, ...argv: readonly string[]) {
  return pushedDocument.parse(await bootshimJson(["push", ...argv], options));
}

async function prepare(options: { root: string }, ...argv: readonly string[]) {
  return prepareDocument.parse(await bootshimJson(["prepare", ...argv], options));
}

async function codeOf(options: CommandOptions, ...argv: readonly string[]): Promise<string> {
  const { stderr } = await bootshim([...argv, "-o", "json"], options);
  return z.object({ error: z.object({ code: z.string() }) }).parse(JSON.parse(stderr)).error.code;
}

/** The very bytes of a manifest or index, as skopeo gets them. */
async function rawOf(place: string): Promise<string> {
  const tls = place.startsWith("docker:") ? ["--tls-verify=false"] : [];
  return (await run("skopeo", ["inspect", "--raw", ...tls, place])).stdout;
}

async function skopeoCopy(from: string, to: string): Promise<void> {
  const flags = ["--insecure-policy", "--all", "--preserve-digests"];
  const tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
  await run("skopeo", ["copy", ...flags, ...tls, from, to]);
}

async function pullAll(
  options: { root: string },
  reference: string,
  platforms: readonly (readonly string[])[],
) {
  for (const [arch = "", variant = ""] of platforms) {
    await bootshimJson(["pull", reference, "--arch", arch, "--variant", variant], options);
  }
}

async function problems({ root }: { root: string }): Promise<string[]> {
  const groupId = await qemuGroupId();
  return layoutProblems(root, groupId === null ? {} : { groupId });
}

describe("build", () => {
  it("gives the same digests in another root, from files elsewhere and of another time, in any order", async () => {
    const [kernel, disk, cmdline] = [
      await newFile(randomKernel()),
      await newFile(randomBytes(9000)),
      await newFile(
        new TextEncoder().encode(`console=ttyS0 ${randomWord()}\n`),
      ),
    ];
    const parts = (kernel: string, disk: string) => [
      `arch=amd64,kernel=${kernel},cmdline=${cmdline}`,
      `arch=arm64,rootfs=${disk}`,
      `arch=amd64,variant=metal,uki=${kernel},kernel=${kernel}`,
    ];
    const name = "127.0.0.1:1/os/same:1";
    const one = await build(newRoot(), {
      name,
      configs: parts(kernel, disk),
      flags: ["--annotation", "org.example.b=2", "--annotation", "org.example.a=1=1"],
    });
    await mkdir(join(work, "elsewhere"));
    const copies = [join(work, "elsewhere", "vmlinuz"), join(work, "elsewhere", "disk.raw")] as const;
    await copyFile(kernel, copies[0]);
    await copyFile(disk, copies[1]);
    for (const copy of copies) await utimes(copy, 1, 1);
    const [a = "", b = "", c = ""] = parts(...copies);
    const swapped = c.split(",").toReversed().join(",");
    const two = await build(newRoot(), {
      name: "127.0.0.1:1/os/other:2",
      configs: [swapped, b, a],
      flags: ["--annotation", "org.example.a=1=1", "--annotation", "org.example.b=2"],
    });
    expect({ ...two, reference: name }).toEqual(one);
    expect(one.manifests.map(({ architecture, variant }) => `${architecture}/${variant}`)).toEqual([
      "amd64/virtualization",
      "arm64/virtualization",
      "amd64/metal",
    ]);
    const three = await build(newRoot(), { name, configs: parts(kernel, disk) });
    expect(three.digest).not.toBe(one.digest);
    expect(three.manifests).toEqual(one.manifests);
  });

  it("states platform and variant wherever a reader may look", async () => {
    const options = newRoot();
    const name = "127.0.0.1:1/os/stated:1";
    const config = `arch=arm64,variant=metal,rootfs=${await newFile(randomBytes(9000))}`;
    for (const [format, diskType] of [["ironcore", "rootfs"], ["spec", "disk.img"]] as const) {
      const built = await build(options, { name, configs: [config], flags: ["--format", format] });
      const layout = `oci:${options.root}/images`;
      const index = JSON.parse(await rawOf(`${layout}:${name}`));
      expect(index).toEqual({
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.index.v1+json",
        manifests: [{
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          digest: built.manifests[0]?.digest,
          size: expect.any(Number),
          platform: { architecture: "arm64", os: "linux" },
          annotations: { architecture: "arm64", cname: "metal_pxe-arm64", variant: "metal" },
        }],
      });
      const path = join(options.root, "images/blobs", ...(built.manifests[0]?.digest ?? "").split(":"));
      const manifest = JSON.parse(await readFile(path, "utf8"));
      expect(manifest).toMatchObject({
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: { mediaType: "application/vnd.ironcore.image.config.v1+json" },
        layers: [{
          mediaType: `application/vnd.ironcore.image.${diskType}`,
          annotations: { "org.opencontainers.image.title": "rootfs" },
        }],
        annotations: {
          architecture: "arm64",
          variant: "metal",
          "org.opencontainers.image.title": "metal-arm64",
        },
      });
    }
  });

  it.each([
    ["an annotation without a value", ["--annotation", "key"]],
    ["an annotation without a key", ["--annotation", "=value"]],
    ["an annotation twice", ["--annotation", "a=1", "--annotation", "a=2"]],
    ["a format nobody knows", ["--format", "docker"]],
  ])("refuses %s", async (_case, flags) => {
    const config = `arch=amd64,kernel=${await newFile(randomKernel())}`;
    const code = await codeOf(newRoot(), "build", "--tag", "h.io/os:1", "--config", config, ...flags);
    expect(code).toBe("REQUEST_INVALID");
  });
});

describe("build, push, inspect, prepare", () => {
  const layerSet = fc.record({
    others: fc.uniqueArray(fc.constantFrom("rootfs", "squashfs", "uki", "iso")),
    // A disk has whole sectors.
    sectors: fc.array(fc.integer({ min: 1, max: 600 }), { minLength: 4, maxLength: 4 }),
    variant: fc.constantFrom("virtualization", "metal"),
    format: fc.constantFrom("ironcore", "spec"),
    commandLine: fc.option(fc.constantFrom("console=ttyS0", "a=b c", "quiet")),
  });

  it("give the very files, for random layer sets", async () => {
    const maker = newRoot();
    await fc.assert(
      fc.asyncProperty(layerSet, async ({ others, sectors, variant, format, commandLine }) => {
        // Kernel and initramfs make every set bootable, so that `prepare` has something to prepare.
        const files = new Map<string, Uint8Array>([["kernel", randomKernel()], [
          "initramfs",
          randomInitramfs(),
        ]]);
        others.forEach((role, i) => files.set(role, new Uint8Array(randomBytes(512 * (sectors[i] ?? 1)))));
        const name = `${registry.host}/os/${randomWord()}:1`;
        const parts = ["arch=amd64", `variant=${variant}`];
        for (const [role, bytes] of files) parts.push(`${role}=${await newFile(bytes)}`);
        if (commandLine !== null) {
          parts.push(`cmdline=${await newFile(new TextEncoder().encode(commandLine))}`);
        }
        const built = await build(maker, { name, configs: [parts.join(",")], flags: ["--format", format] });
        expect((await push(maker, name)).digest).toBe(built.digest);
        const wish = ["--arch", "amd64", "--variant", variant];
        const reader = newRoot();
        const inspected = z.object({
          digest: z.string(),
          layers: z.array(z.object({ role: z.string(), digest: z.string() })),
        }).parse(await bootshimJson(["inspect", name, ...wish], reader));
        const prepared = await prepare(reader, name, ...wish, "--boot", "kernel");
        expect([inspected.digest, prepared.digest]).toEqual([built.digest, built.digest]);
        expect(inspected.layers).toEqual(prepared.layers.map(({ role, digest }) => ({ role, digest })));
        expect(prepared.layers.map(({ role }) => role).sort()).toEqual([...files.keys()].sort());
        for (const { role, path } of prepared.layers) {
          expect(new Uint8Array(await readFile(path))).toEqual(files.get(role));
        }
        if (commandLine !== null) expect(prepared.boot.cmdline).toContain(commandLine);
      }),
      { numRuns: RANDOM_SETS },
    );
    expect(await problems(maker)).toEqual([]);
  });
});

/** An image for two architectures and both variants, in a cache of its own. */
async function buildMany(options: { root: string }, name: string) {
  const config = async (platform: string, kernel: Uint8Array) =>
    `${platform},kernel=${await newFile(kernel)},initramfs=${await newFile(randomInitramfs())}`;
  const configs = [
    await config("arch=amd64,variant=metal", randomKernel()),
    await config("arch=arm64", new Uint8Array([...arm64Image(), ...randomBytes(16)])),
    await config("arch=amd64", randomKernel()),
  ];
  return await build(options, { name, configs });
}

describe("push", () => {
  it("sends a blob once, and mounts it from another repository the cache knows", async () => {
    const options = newRoot();
    const [one, two] = [`${proxy.host}/os/${randomWord()}:1`, `${proxy.host}/os/${randomWord()}:1`] as const;
    const built = await buildMany(options, one);
    const first = await push(options, one);
    expect(first.transferredBytes).toBeGreaterThan(15_000);
    await bootshimJson(["tag", one, two], options);
    proxy.requests.length = 0;
    const second = await push(options, two);
    expect(second).toEqual({
      digest: built.digest,
      transferredBytes: 0,
      mountedBytes: first.transferredBytes,
      tags: [],
    });
    const uploads = proxy.requests.filter((request) => /^P(OST|ATCH|UT) .*\/blobs\//.test(request));
    expect(uploads).not.toEqual([]);
    for (const upload of uploads) expect(upload).toContain("?mount=");
    proxy.requests.length = 0;
    expect(await push(options, two)).toEqual({ ...second, mountedBytes: 0 });
    expect(proxy.requests.filter((request) => request.includes("/uploads/"))).toEqual([]);
    expect(await rawOf(`docker://${two}`)).toBe(await rawOf(`docker://${one}`));
  });

  it("publishes each manifest under tags of its own, the one for virtual machines first", async () => {
    const options = newRoot();
    const name = `${registry.host}/os/${randomWord()}`;
    const { manifests: [amd, arm, metal] } = await buildMany(options, `${name}:1`);
    const pushed = await push(options, `${name}:1`, "--push-sub-manifests");
    expect(new Map(pushed.tags.map(({ tag, digest }) => [tag, digest]))).toEqual(
      new Map([
        ["1-amd64", amd?.digest],
        ["1-virtualization-amd64", amd?.digest],
        ["1-arm64", arm?.digest],
        ["1-virtualization-arm64", arm?.digest],
        ["1-metal-amd64", metal?.digest],
      ]),
    );
    for (const { tag, digest } of pushed.tags) {
      const raw = await rawOf(`docker://${name}:${tag}`);
      expect(`sha256:${createHash("sha256").update(raw).digest("hex")}`).toBe(digest);
    }
    const prepared = await prepare(
      newRoot(),
      `${name}:1-metal-amd64`,
      "--variant",
      "metal",
      "--boot",
      "kernel",
    );
    expect([prepared.digest, prepared.variant]).toEqual([metal?.digest, "metal"]);
  });

  it("refuses tags that would be too long, and manifests without a tag to begin with", async () => {
    const options = newRoot();
    const name = `127.0.0.1:1/os/x:${"t".repeat(125)}`;
    const { digest } = await buildMany(options, name);
    for (const reference of [name, `127.0.0.1:1/os/x@${digest}`]) {
      expect(await codeOf(options, "push", reference, "--push-sub-manifests")).toBe("REQUEST_INVALID");
    }
  });

  it.each(
    [
      // docker-registry cannot tell how far an upload is when its last answer was lost: it gives the upload up.
      ["the answer to a chunk was lost", "lose", ["GET", "HEAD", "POST", "PATCH", "PATCH"]],
      ["a chunk did not get through", "not-found", ["GET", "PATCH"]],
    ] as const,
  )("brings a blob in chunks to the registry when %s", async (_case, tampering, detour) => {
    const blob = randomBlob(1_000_003);
    const client = new RegistryClient({
      host: proxy.host,
      repository: `os/${randomWord()}`,
      limits: { chunkBytes: 300_000, backoffMs: 5 },
    });
    try {
      let patches = 0;
      proxy.requests.length = 0;
      proxy.tamper(() => proxy.requests.at(-1)?.startsWith("PATCH") && ++patches === 2 ? tampering : "none");
      await client.pushBlob(blob.descriptor, (startByte) => streamOf(blob.bytes.subarray(startByte)));
      expect(await client.fetchSmallBlob(blob.descriptor)).toEqual(blob.bytes);
      const methods = proxy.requests.map((request) => request.split(" ")[0]);
      expect(methods).toEqual(["POST", "PATCH", "PATCH", ...detour, "PATCH", "PATCH", "PUT", "GET"]);
    } finally {
      proxy.tamper(() => "none");
      await client.close();
    }
  });

  it("sends what was built, whole or not at all", async () => {
    const options = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    await buildMany(options, name);
    await push(options, name);
    const sparse = newRoot();
    await bootshimJson(["pull", name, "--arch", "arm64"], sparse);
    expect(await codeOf(sparse, "push", name)).toBe("IMAGE_NOT_FOUND");
  });

  it("refuses by name an index with entries that nobody here can verify", async () => {
    const options = newRoot();
    const builder = new ShapeBuilder();
    const kernel = builder.manifest([builder.layer("application/vnd.ironcore.image.kernel", randomKernel())]);
    const strange = { ...entryOf(kernel), digest: `blake3:${randomWord()}` };
    const built = builder.finish(builder.index([entryOf(kernel, linux("amd64")), strange]), [], {
      layers: [],
    });
    const layout = join(work, randomWord());
    await writeShape(layout, built);
    const name = `${registry.host}/os/${randomWord()}:1`;
    await bootshimJson(["pull", `oci:${layout}:1`], options);
    await bootshimJson(["tag", `oci:${layout}:1`, name], options);
    const { stderr } = await bootshim(["push", name, "-o", "json"], options);
    expect(JSON.parse(stderr).error).toMatchObject({
      code: "DIGEST_UNSUPPORTED",
      message: expect.stringContaining(strange.digest),
    });
  });
});

describe("export and import", () => {
  const PLATFORMS = [["amd64", "virtualization"], ["arm64", "virtualization"], ["amd64", "metal"]] as const;

  it.each(["oci-archive", "oci"])("carry an image to a host without a registry by %s", async (transport) => {
    const maker = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    const built = await buildMany(maker, name);
    const target = `${transport}:${join(work, randomWord())}`;
    await bootshimJson(["export", name, target], maker);
    const there = newRoot();
    expect(await bootshimJson(["import", target], there)).toMatchObject({
      images: [{ reference: name, digest: built.digest }],
    });
    for (const [arch, variant] of PLATFORMS) {
      const wish = ["--arch", arch, "--variant", variant, "--boot", "kernel", "--pull", "never"];
      const prepared = await prepare(there, name, ...wish);
      expect([prepared.digest, prepared.cached]).toEqual([built.digest, true]);
      // The layout itself is a place to prepare from, too, under the image's name.
      const direct = await prepare(newRoot(), `${target}:${name}`, ...wish.slice(0, -2));
      expect(direct.layers.map(({ digest }) => digest)).toEqual(prepared.layers.map(({ digest }) => digest));
    }
    expect(await problems(there)).toEqual([]);
  });

  it("writes the same archive in another cache, and shows progress and result in words", async () => {
    const maker = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    await buildMany(maker, name);
    await push(maker, name);
    const other = newRoot();
    await pullAll(other, name, PLATFORMS);
    const files = [join(work, `${randomWord()}.tar`), join(work, `${randomWord()}.tar`)] as const;
    const { stdout, stderr } = await bootshim(["export", name, `oci-archive:${files[0]}`], maker);
    expect(stdout).toContain("amd64/virtualization,arm64/virtualization,amd64/metal");
    expect(stderr).toMatch(/^exporting 100% /);
    await bootshimJson(["export", name, `oci-archive:${files[1]}`], other);
    expect(await readFile(files[1])).toEqual(await readFile(files[0]));
  });

  it("takes a relative file, and refuses what is no layout or names one image of it", async () => {
    const maker = { ...newRoot(), cwd: work };
    const name = `127.0.0.1:1/os/${randomWord()}:1`;
    await buildMany(maker, name);
    await bootshimJson(["export", name, "oci-archive:relative.tar"], maker);
    expect(await readdir(work)).toContain("relative.tar");
    expect(await codeOf(maker, "export", name, "relative.tar")).toBe("REFERENCE_INVALID");
    expect(await codeOf(maker, "export", name, "oci-archive:relative.tar:1")).toBe("REFERENCE_INVALID");
    expect(await codeOf(maker, "export", "oci-archive:relative.tar")).toBe("REQUEST_INVALID");
    expect(await codeOf(maker, "import", `oci-archive:relative.tar:${name}`)).toBe("REFERENCE_INVALID");
    expect(await codeOf(maker, "import", "oci-archive:absent.tar")).toBe("IMAGE_NOT_FOUND");
    const folder = join(work, "with:colon");
    await mkdir(folder);
    expect(await codeOf({ ...maker, cwd: folder }, "import", "oci-archive:relative.tar")).toBe(
      "REFERENCE_INVALID",
    );
  });

  it("prepares straight from another cache's layout, under the name the image has there", async () => {
    const maker = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    const built = await buildMany(maker, name);
    const prepared = await prepare(newRoot(), `oci:${maker.root}/images:${name}`, "--boot", "kernel");
    expect(prepared.digest).toBe(built.digest);
  });
});

describe("skopeo", () => {
  it("copies what `build` makes between registry, layout and archive without loss", async () => {
    const maker = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    const built = await buildMany(maker, name);
    await push(maker, name);
    const exported = join(work, `${randomWord()}.tar`);
    await bootshimJson(["export", name, `oci-archive:${exported}`], maker);
    const at = (suffix: string) => join(work, `${randomWord()}${suffix}`);
    const [layout, archive, again] = [
      `oci:${at("")}:1`,
      `oci-archive:${at(".tar")}:1`,
      `${registry.host}/os/again:1`,
    ] as const;
    const chain = [
      `oci-archive:${exported}:${name}`,
      layout,
      archive,
      `docker://${again}`,
      `oci:${at("")}:2`,
    ];
    for (const [i, to] of chain.entries()) {
      const from = chain[i - 1];
      if (from !== undefined) await skopeoCopy(from, to);
      const raw = await rawOf(to);
      expect([to, `sha256:${createHash("sha256").update(raw).digest("hex")}`]).toEqual([to, built.digest]);
    }
    const direct = await prepare(newRoot(), name, "--boot", "kernel");
    for (const place of [again, layout, archive]) {
      const copied = await prepare(newRoot(), place, "--boot", "kernel");
      const digests = (document: typeof direct) => [
        document.digest,
        document.manifestDigest,
        document.boot.cmdline,
        ...document.layers.map(({ role, digest }) => `${role} ${digest}`),
      ];
      expect(digests(copied)).toEqual(digests(direct));
    }
  });

  it("gives archives and layouts that are imported whole, by the name they are given", async () => {
    const maker = newRoot();
    const name = `${registry.host}/os/${randomWord()}:1`;
    const built = await buildMany(maker, name);
    await push(maker, name);
    for (
      const place of [`oci-archive:${join(work, `${randomWord()}.tar`)}`, `oci:${join(work, randomWord())}`]
    ) {
      await skopeoCopy(`docker://${name}`, `${place}:latest`);
      const there = newRoot();
      expect(await codeOf(there, "import", place)).toBe("REQUEST_INVALID");
      expect(await bootshimJson(["import", place, "--tag", "h.io/os:given"], there)).toMatchObject({
        images: [{ reference: "h.io/os:given", digest: built.digest }],
      });
      expect((await prepare(there, "h.io/os:given", "--boot", "kernel", "--pull", "never")).digest).toBe(
        built.digest,
      );
      // A layout that skopeo made can be added to, and read by it afterwards.
      if (place.startsWith("oci:")) {
        await bootshimJson(["export", name, place], maker);
        expect(await rawOf(`${place}:latest`)).toBe(await rawOf(`${place}:${name}`));
      }
    }
  });
});
