/** The real command against real registries that are reached in other ways than directly, and whatever stands between. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { TestAuthority } from "../support/certificates.ts";
import { respond, serveRange, startFaultServer } from "../support/fault_server.ts";
import { startForwardProxy } from "../support/forward_proxy.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import {
  type OsImage,
  osImage,
  osIndex,
  publishLayout,
  randomInitramfs,
  randomKernel,
} from "../support/os_image.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { freePort, type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

let work: string;
let upstream: RegistryServer;
/** The upstream registry, counted. */
let counted: RegistryProxy;
let image: OsImage;
let count = 0;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-reach-"));
  upstream = await startRegistryServer();
  counted = await startRegistryProxy(upstream.host);
  image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() });
  const { name } = await publishLayout(join(work, "layout"), [image]);
  await publish(name, upstream.host);
});
afterAll(async () => {
  await counted?.stop();
  await upstream?.stop();
  await rm(work, { recursive: true, force: true });
});

/** Brings the layout's image into a registry, with the real command. */
async function publish(
  name: string,
  host: string,
  environment: Record<string, string> = {},
): Promise<void> {
  const root = newRoot();
  const reference = `${host}/os/demo:1`;
  for (const argv of [["pull", name], ["tag", name, reference], ["push", reference]]) {
    const ended = await bootshim(argv, { root, environment });
    if (ended.exitCode !== 0) throw new Error(`${argv.join(" ")}: ${ended.stderr}`);
  }
}

async function problems(root: string): Promise<string[]> {
  const groupId = await qemuGroupId();
  return layoutProblems(root, groupId === null ? {} : { groupId });
}

const newRoot = () => join(work, `root-${count += 1}`);

async function write(name: string, text: string): Promise<string> {
  const path = join(work, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  return path;
}

/** A configuration whose `hosts.toml` of one registry says this. */
async function withHosts(host: string, hosts: string): Promise<Record<string, string>> {
  const directory = `hosts-${count += 1}`;
  await write(`${directory}/${host}/hosts.toml`, hosts);
  const config = `[registry]\nhosts_directories = [${JSON.stringify(join(work, directory))}]\n`;
  return { BOOTSHIM_CONFIG: await write(`${directory}.toml`, config) };
}

describe("a registry behind TLS with an authority of its own", () => {
  it("RP47 is pushed to and pulled from with its ca, and is REGISTRY_TLS without", async () => {
    await using authority = await TestAuthority.make();
    const tls = await authority.issue({ name: "registry", for: ["DNS:registry.example"] });
    const secure = await startRegistryServer({ tls });
    const name = "registry.example:5443";
    // The name leads there through a proxy: it alone resolves it.
    const proxy = await startForwardProxy({ [name]: secure.host });
    try {
      const config = await write(
        "tls.toml",
        `[registry.host."${name}"]\nca = ${JSON.stringify(authority.file)}\n`,
      );
      const environment = { HTTPS_PROXY: proxy.url.href, NO_PROXY: "", BOOTSHIM_CONFIG: config };
      await publish(`oci:${join(work, "layout")}:1`, name, environment);
      const root = newRoot();
      await bootshimJson(["pull", `${name}/os/demo:1`], { root, environment });
      expect(await problems(root)).toEqual([]);
      const strict = { ...environment, BOOTSHIM_CONFIG: "/dev/null" };
      const refused = await bootshim(["pull", `${name}/os/demo:1`], { root: newRoot(), environment: strict });
      expect(refused.stderr).toContain("REGISTRY_TLS");
      expect(refused.exitCode).toBe(76);
    } finally {
      await proxy.stop();
      await secure.stop();
    }
  });
});

describe("mirrors by hosts.toml", () => {
  it("a pull-through docker-registry serves all of an image, also when the registry is gone", async () => {
    const cache = await startRegistryServer({ remoteUrl: `http://${counted.host}` });
    try {
      const reference = `${counted.host}/os/demo:1`;
      const hosts = `[host."http://${cache.host}"]\ncapabilities = ["pull", "resolve"]\n`;
      const environment = await withHosts(counted.host, hosts);
      const first = newRoot();
      await bootshimJson(["pull", reference], { root: first, environment });
      expect(await problems(first)).toEqual([]);
      const blobs = counted.requests.filter((line) => line.startsWith("GET") && line.includes("/blobs/"));
      expect(blobs.length).toBeGreaterThan(0);
      // The registry loses everything; the cache keeps what it has.
      counted.tamper(() => "not-found");
      const second = newRoot();
      await bootshimJson(["pull", reference], { root: second, environment });
      expect(await problems(second)).toEqual([]);
      const refused = await bootshim(["pull", reference], { root: newRoot() });
      expect(refused.stderr).toContain("REGISTRY_NOT_FOUND");
    } finally {
      counted.tamper(() => "none");
      await cache.stop();
    }
  });

  it("a peer that knows content by digest and ns only serves the layers; the tag comes from the registry", async () => {
    const contents = new Map([image.manifest, ...Object.values(image.layers)].map((blob) => [
      blob.descriptor.digest as string,
      blob,
    ]));
    await using peer = await startFaultServer((request) => {
      const { pathname, searchParams } = new URL(request.path, "http://peer");
      const content = contents.get(pathname.split("/").at(-1) ?? "");
      if (searchParams.get("ns") !== upstream.host || content === undefined) return respond(404);
      if (!pathname.includes("/manifests/")) return serveRange(request, content.bytes);
      return respond(200, {
        headers: { "Content-Type": content.descriptor.mediaType },
        body: content.bytes,
      });
    });
    const environment = await withHosts(
      "_default",
      `[host."http://${peer.host}"]\ncapabilities = ["pull"]\ndial_timeout = "200ms"\n`,
    );
    const root = newRoot();
    await bootshimJson(["pull", `${upstream.host}/os/demo:1`], { root, environment });
    expect(await problems(root)).toEqual([]);
    const asked = peer.requests.map(({ path }) => new URL(path, "http://peer").pathname.split("/").at(-1));
    for (const { descriptor } of Object.values(image.layers)) expect(asked).toContain(descriptor.digest);
    expect(asked).not.toContain("1");
    expect(asked).not.toContain(osIndex([image]).descriptor.digest);
  });

  it("RP01 a mirror that has every layer wrong changes nothing: the right bytes come from the registry", async () => {
    await using liar = await startFaultServer((request) => {
      const content = Object.values(image.layers).find(({ descriptor }) =>
        request.path.includes(descriptor.digest)
      );
      if (content === undefined) return respond(404);
      const flipped = content.bytes.slice();
      flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
      return serveRange(request, flipped);
    });
    const environment = await withHosts(upstream.host, `[host."http://${liar.host}"]\n`);
    const root = newRoot();
    await bootshimJson(["pull", `${upstream.host}/os/demo:1`], { root, environment });
    expect(await problems(root)).toEqual([]);
    expect(liar.requests.some(({ path }) => path.includes("/blobs/"))).toBe(true);
  });

  it("skip_verify is CONFIG_INVALID, and says what to do instead", async () => {
    const environment = await withHosts(upstream.host, '[host."https://m.example"]\nskip_verify = true\n');
    const refused = await bootshim(["pull", `${upstream.host}/os/demo:1`], { root: newRoot(), environment });
    expect(refused.exitCode).toBe(78);
    expect(refused.stderr).toContain("name its authority with ca");
  });
});

describe("what a real registry says of a repository", () => {
  it("RP43 tags, page by page; none of a repository that is not there", async () => {
    const root = newRoot();
    await bootshimJson(["pull", `${upstream.host}/os/demo:1`], { root });
    const tags = ["a", "b.2", "latest"];
    for (const tag of tags) {
      const reference = `${upstream.host}/os/tagged:${tag}`;
      await bootshim(["tag", `${upstream.host}/os/demo:1`, reference], { root });
      expect((await bootshim(["push", reference], { root })).exitCode).toBe(0);
    }
    const listed = await bootshim(["tags", `${upstream.host}/os/tagged`], { root });
    expect([listed.exitCode, listed.stdout]).toEqual([0, "a\nb.2\nlatest\n"]);
    expect(await bootshimJson(["tags", `docker://${upstream.host}/os/tagged`], { root })).toEqual({
      repository: `${upstream.host}/os/tagged`,
      tags,
    });
    expect((await bootshim(["tags", `${upstream.host}/os/none`], { root })).exitCode).toBe(66);
    expect((await bootshim(["tags", "oci:/layout"], { root })).exitCode).toBe(64);
  });

  it("RP45 what refers to an image, kept under a tag of its digest, for want of a list", async () => {
    const root = newRoot();
    expect(await bootshimJson(["referrers", `${upstream.host}/os/demo:1`], { root })).toEqual([]);
    const sbom = image.manifest;
    const tag = osIndex([image]).descriptor.digest.replace(":", "-");
    const body = JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [{
        mediaType: OCI_MANIFEST,
        digest: sbom.descriptor.digest,
        size: sbom.descriptor.sizeBytes,
        artifactType: "application/spdx+json",
      }],
    });
    const put = await fetch(`http://${upstream.host}/v2/os/demo/manifests/${tag}`, {
      method: "PUT",
      headers: { "Content-Type": OCI_INDEX },
      body,
    });
    expect(put.status).toBe(201);
    const listed = await bootshim(["referrers", `${upstream.host}/os/demo:1`], { root });
    expect(listed.stdout).toContain(sbom.descriptor.digest);
    expect(listed.stdout).toContain("application/spdx+json");
    const others = ["referrers", `${upstream.host}/os/demo:1`, "--type", "application/other"];
    expect(await bootshimJson(others, { root })).toEqual([]);
  });
});

describe("doctor REF", () => {
  const findings = z.array(z.object({ check: z.string(), verdict: z.string(), found: z.string() }));
  const examine = async (reference: string, environment: Record<string, string>) => {
    const ended = await bootshim(["doctor", reference, "-o", "json"], { root: newRoot(), environment });
    const all = findings.parse(JSON.parse(ended.stdout));
    return {
      ended,
      route: all.filter(({ check }) => check === "mirror" || check === "registry"),
    };
  };

  it("tells of every place on the way to an image whether it answers, and through which proxy", async () => {
    await using mirror = await startFaultServer(() => respond(404));
    const dead = `127.0.0.1:${await freePort()}`;
    const environment = await withHosts(
      upstream.host,
      `[host."http://${mirror.host}"]\n[host."http://${dead}"]\ncapabilities = ["pull"]\n`,
    );
    const { route } = await examine(`${upstream.host}/os/demo:1`, environment);
    expect(route.map(({ check, verdict }) => [check, verdict])).toEqual([
      ["mirror", "ok"],
      ["mirror", "warn"],
      ["registry", "ok"],
    ]);
    expect(route[0]?.found).toContain(`http://${mirror.host}/v2/ (tags and content)`);
    expect(route[1]?.found).toContain("ECONNREFUSED");
    expect(route[2]?.found).toContain(osIndex([image]).descriptor.digest);
  });

  it("tells what is wrong with the registry, without the proxy's password", async () => {
    const none = await examine(`${upstream.host}/os/none:1`, {});
    expect(none.route).toMatchObject([{ check: "registry", verdict: "fail" }]);
    expect(none.ended.exitCode).not.toBe(0);
    await using proxy = await startForwardProxy({});
    const environment = { HTTPS_PROXY: `http://user:s3cr3t@${proxy.url.host}`, NO_PROXY: "", no_proxy: "" };
    const { route, ended } = await examine("registry.example/os/demo:1", environment);
    expect(route).toMatchObject([{ verdict: "fail", found: expect.stringContaining("the proxy answered") }]);
    expect(ended.stdout + ended.stderr).not.toContain("s3cr3t");
  });
});

describe("policy and limits", () => {
  it("POLICY_DENIED before anything is asked, of every command that names a registry, cached images included", async () => {
    const reference = `${counted.host}/os/demo:1`;
    const config = await write("policy.toml", `[policy]\ndeny = ["${counted.host}/os/*"]\n`);
    const root = newRoot();
    await bootshimJson(["pull", reference], { root });
    counted.requests.length = 0;
    const environment = { BOOTSHIM_CONFIG: config };
    for (
      const argv of [
        ["pull", reference],
        ["inspect", reference],
        ["prepare", reference],
        ["prepare", reference, "--pull", "never"],
        ["push", reference],
        ["xml", reference],
      ]
    ) {
      const refused = await bootshim(argv, { root, environment });
      expect([argv[0], refused.exitCode, refused.stdout]).toEqual([argv[0], 77, ""]);
      expect(refused.stderr).toMatch(/^bootshim: POLICY_DENIED: /);
    }
    expect(counted.requests).toEqual([]);
    // Files of this host are none of the policy's business.
    await bootshimJson(["pull", `oci:${join(work, "layout")}:1`], { root: newRoot(), environment });
  });

  it("HM09 an image over a limit is LIMIT_EXCEEDED before its first layer is asked for, and leaves nothing", async () => {
    const sizes = Object.values(image.layers).map(({ descriptor }) => descriptor.sizeBytes);
    const limits: readonly (readonly [string, number])[] = [
      ["max_layers", sizes.length - 1],
      ["max_layer_bytes", Math.max(...sizes) - 1],
      ["max_image_bytes", sizes.reduce((sum, size) => sum + size, 0) - 1],
    ];
    for (const [key, limit] of limits) {
      const refusing = await write(`${key}.toml`, `[limits]\n${key} = ${limit}\n`);
      const root = newRoot();
      counted.requests.length = 0;
      const refused = await bootshim(["pull", `${counted.host}/os/demo:1`], {
        root,
        environment: { BOOTSHIM_CONFIG: refusing },
      });
      expect([refused.exitCode, refused.stderr]).toEqual([65, expect.stringContaining(key)]);
      expect(refused.stderr).toMatch(/^bootshim: LIMIT_EXCEEDED: /);
      const layers = Object.values(image.layers).map(({ descriptor }) => descriptor.digest);
      expect(counted.requests.filter((line) => layers.some((digest) => line.includes(digest)))).toEqual([]);
      expect(await bootshimJson(["images"], { root })).toEqual([]);
      expect(await problems(root)).toEqual([]);
      const allowing = await write(`${key}-enough.toml`, `[limits]\n${key} = ${limit + 1}\n`);
      await bootshimJson(["pull", `${counted.host}/os/demo:1`], {
        root,
        environment: { BOOTSHIM_CONFIG: allowing },
      });
    }
  });
});
