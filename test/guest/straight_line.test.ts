/**
 * The whole line with the real command: build, push to a real registry, prepare, boot under QEMU. What the guests say
 * is a word that is random in every run.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { PREPARE_SCHEMA } from "../support/prepare_schema.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

const run = promisify(execFile);
const words = {
  kernel: randomWord(),
  root: randomWord(),
  uefi: randomWord(),
  bios: randomWord(),
  cmdline: randomWord(),
};

let work: string;
let registry: RegistryServer;
let proxy: RegistryProxy;
let host: string;
let root: string;

/** The document, after both schemas had their say. */
async function prepare(argv: readonly string[], at = root) {
  const document = await bootshimJson(["prepare", ...argv], { root: at });
  const validate = new Ajv2020({ strict: false }).compile(PREPARE_SCHEMA);
  expect(validate(document), JSON.stringify(validate.errors)).toBe(true);
  return prepareDocument.parse(document);
}

async function problems(at: string): Promise<string[]> {
  const groupId = await qemuGroupId();
  return layoutProblems(at, groupId === null ? {} : { groupId });
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-line-"));
  root = join(work, "root");
  registry = await startRegistryServer();
  proxy = await startRegistryProxy(registry.host);
  host = proxy.host;

  const maker = { root: join(work, "maker") };
  await writeFile(join(work, "cmdline"), `console=ttyS0 quiet panic=-1 shim.word=${words.cmdline}\n`);
  const kernel = await makeGuestPart("kernel");
  const initramfs = await makeGuestPart("initramfs", { word: words.kernel });
  const ext4 = await makeGuestPart("rootfs-ext4", { word: words.root });
  const uefi = await makeGuestPart("disk-uefi", { word: words.uefi });
  const bios = await makeGuestPart("disk-bios", { word: words.bios });
  const configs = {
    "kernel:1": [
      `arch=amd64,kernel=${kernel},initramfs=${initramfs},rootfs=${ext4},cmdline=${join(work, "cmdline")}`,
    ],
    "diskless:1": [`arch=amd64,kernel=${kernel},initramfs=${initramfs}`],
    "uefi:1": [
      `arch=amd64,rootfs=${uefi}`,
      `arch=arm64,rootfs=${uefi}`,
      `arch=amd64,variant=metal,kernel=${kernel}`,
    ],
    "bios:1": [`arch=amd64,rootfs=${bios}`],
  };
  for (const [name, parts] of Object.entries(configs)) {
    await bootshimJson([
      "build",
      "--tag",
      `${registry.host}/os/${name}`,
      ...parts.flatMap((part) => ["--config", part]),
    ], maker);
    await bootshimJson(["push", `${registry.host}/os/${name}`], maker);
  }
});

afterAll(async () => {
  await proxy.stop();
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

describe("inspect", () => {
  it("tells entries, roles, sizes and every mode without fetching or storing a layer", async () => {
    proxy.requests.length = 0;
    const at = { root: join(work, "inspected") };
    const inspected = await bootshimJson(["inspect", `${host}/os/uefi:1`], at) as {
      entries: unknown[];
      modes: { mode: string; possible: boolean }[];
    };
    expect(inspected.entries).toMatchObject([
      { architecture: "amd64", os: "linux", variant: "virtualization", isChosen: true },
      { architecture: "arm64", os: "linux", variant: "virtualization", isChosen: false },
      { architecture: "amd64", os: "linux", variant: "metal", isChosen: false },
    ]);
    expect(inspected.modes.map(({ mode, possible }) => [mode, possible])).toEqual([
      ["disk", true],
      ["kernel", false],
      ["uki", false],
      ["iso", false],
    ]);
    expect(await readdir(join(at.root, "images/blobs/sha256"))).toEqual([]);
  });
});

describe("prepare", () => {
  it("transfers an image once, and sends nothing to the registry for it again", async () => {
    proxy.requests.length = 0;
    const first = await prepare([`${host}/os/kernel:1`]);
    expect(first.cached).toBe(false);
    expect(first.transferredBytes).toBeGreaterThan(10_000_000);
    expect(proxy.requests.length).toBeGreaterThan(0);
    proxy.requests.length = 0;
    const second = await prepare([`${host}/os/kernel:1`]);
    expect(proxy.requests).toEqual([]);
    expect(second).toEqual({ ...first, cached: true, transferredBytes: 0 });
    expect(await problems(root)).toEqual([]);
  });

  it("gives the very bytes that were built, by role", async () => {
    const { layers } = await prepare([`${host}/os/kernel:1`]);
    const sources = {
      kernel: await makeGuestPart("kernel"),
      initramfs: await makeGuestPart("initramfs", { word: words.kernel }),
      rootfs: await makeGuestPart("rootfs-ext4", { word: words.root }),
    };
    for (const [role, path] of Object.entries(sources)) {
      const layer = layers.find((each) => each.role === role);
      const bytes = await readFile(path);
      expect(layer).toMatchObject({ digest: sha256(bytes), sizeBytes: bytes.length });
      expect(sha256(await readFile(layer?.path ?? ""))).toBe(sha256(bytes));
    }
  });

  it("chooses by architecture and variant", async () => {
    const arm = await prepare([`${host}/os/uefi:1`, "--arch", "aarch64", "--boot", "disk"]);
    const metal = await prepare([`${host}/os/uefi:1`, "--variant", "baremetal", "--boot", "kernel"]);
    expect([arm.architecture, arm.boot.firmware]).toEqual(["arm64", "uefi"]);
    expect([metal.variant, metal.boot.mode]).toEqual(["metal", "kernel"]);
    const none = await bootshim([
      "prepare",
      `${host}/os/uefi:1`,
      "--arch",
      "arm64",
      "--variant",
      "metal",
      "-o",
      "json",
    ], { root });
    expect(none.exitCode).toBe(65);
    const { error } = JSON.parse(none.stderr) as { error: { code: string; details: { offered: unknown[] } } };
    expect(error.code).toBe("PLATFORM_NOT_FOUND");
    expect(error.details.offered).toHaveLength(3);
  });

  it("makes a machine once; the same wishes give the same answer, others a CONFLICT", async () => {
    const argv = [`${host}/os/kernel:1`, "--machine", "vm-1", "--memory", "512MiB", "--disk-size", "64MiB"];
    const first = await prepare(argv);
    expect(first.machine).toMatchObject({
      id: "vm-1",
      nvram: null,
      disks: [{
        role: "rootfs",
        format: "qcow2",
        readOnly: false,
        serial: "machineboot",
        virtualSizeBytes: 64 * 2 ** 20,
        method: "overlay",
      }],
    });
    const again = await prepare(argv);
    expect(again.machine).toEqual(first.machine);
    const other = await bootshim(["prepare", ...argv.slice(0, 3), "--memory", "1GiB", "-o", "json"], {
      root,
    });
    expect([other.exitCode, JSON.parse(other.stderr)]).toMatchObject([73, {
      error: { code: "CONFLICT", retryable: false },
    }]);
  });

  it("prepares from an image layout folder, and copies of skopeo's making prepare the same way", async () => {
    const layout = join(work, "layout");
    await run("skopeo", [
      "copy",
      "--insecure-policy",
      "--src-tls-verify=false",
      "--all",
      `docker://${registry.host}/os/kernel:1`,
      `oci:${layout}:1`,
    ]);
    const fromLayout = await prepare([`oci:${layout}:1`], join(work, "from-layout"));
    const fromRegistry = await prepare([`${host}/os/kernel:1`]);
    expect(fromLayout.manifestDigest).toBe(fromRegistry.manifestDigest);
    const again = await prepare([`oci:${layout}:1`], join(work, "from-layout"));
    expect(again).toEqual({ ...fromLayout, cached: true, transferredBytes: 0 });
  });

  it("leaves a cache that skopeo reads, and pushed images that skopeo reads", async () => {
    await prepare([`${host}/os/kernel:1`]);
    const cached = await run("skopeo", ["inspect", "--raw", `oci:${root}/images:${host}/os/kernel:1`]);
    const pushed = await run("skopeo", [
      "inspect",
      "--raw",
      "--tls-verify=false",
      `docker://${registry.host}/os/kernel:1`,
    ]);
    expect(cached.stdout).toBe(pushed.stdout);
    // skopeo names layers only of container images; copying reads and checks every blob of any.
    const copy = join(work, "copied-by-skopeo");
    await run("skopeo", [
      "copy",
      "--insecure-policy",
      `oci:${root}/images:${host}/os/kernel:1`,
      `oci:${copy}:1`,
    ]);
    const { layers } = await prepare([`${host}/os/kernel:1`]);
    const copied = await readdir(join(copy, "blobs/sha256"));
    expect(copied).toEqual(
      expect.arrayContaining(layers.map((layer) => layer.digest.slice("sha256:".length))),
    );
  });
});

describe("build", () => {
  it("is reproducible: the same files give the same digest in another root", async () => {
    const argv = [
      "build",
      "--tag",
      "127.0.0.1:1/os/same:1",
      "--config",
      `arch=amd64,kernel=${await makeGuestPart("kernel")},cmdline=${join(work, "cmdline")}`,
    ];
    const one = await bootshimJson(argv, { root: join(work, "build-1") });
    const two = await bootshimJson(argv, { root: join(work, "build-2") });
    expect(one).toEqual(two);
  });
});

describe("run", () => {
  const boot = async (name: string, ...argv: string[]) => {
    const ended = await bootshim([
      "run",
      `${host}/os/${name}`,
      "--memory",
      "512MiB",
      "--timeout",
      "100",
      "--quiet",
      ...argv,
    ], { root });
    expect(ended.stderr).toBe("");
    expect(ended.exitCode).toBe(0);
    return parseGuestReport(ended.stdout);
  };

  it("boots a kernel with initramfs and root disk, and leaves the cached disk as it was", async () => {
    const { layers } = await prepare([`${host}/os/kernel:1`]);
    const rootfs = layers.find((layer) => layer.role === "rootfs");
    const report = await boot("kernel:1", "--uuid", "12345678-9abc-4def-8123-456789abcdef", "--cpus", "2");
    expect(report).toMatchObject({
      word: words.kernel,
      rootWord: words.root,
      rootBoots: 1,
      shimWord: words.cmdline,
      firmware: "none",
      cpus: 2,
      uuid: "12345678-9abc-4def-8123-456789abcdef",
      cmdline: `console=ttyS0 quiet panic=-1 shim.word=${words.cmdline} root=/dev/vda rw`,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: rootfs?.sizeBytes, readOnly: false }],
    });
    expect(sha256(await readFile(rootfs?.path ?? ""))).toBe(rootfs?.digest);
    expect((await readdir(join(root, "machines"))).filter((name) => name.includes("run-"))).toEqual([]);
  });

  it("boots a kernel with initramfs and no disk", async () => {
    expect(
      await boot("diskless:1", "--cmdline", "console=ttyS0 quiet", "--append", `shim.word=${words.cmdline}`),
    ).toMatchObject({
      word: words.kernel,
      cmdline: `console=ttyS0 quiet shim.word=${words.cmdline}`,
      disks: [],
    });
  });

  it("boots a UEFI disk", async () => {
    expect(await boot("uefi:1")).toMatchObject({
      word: words.uefi,
      firmware: "uefi",
      disks: [{ name: "vda", serial: "machineboot", readOnly: false }],
    });
  });

  it("boots a BIOS disk", async () => {
    expect(await boot("bios:1")).toMatchObject({ word: words.bios, firmware: "bios" });
  });

  it("ends a guest that takes too long with HYPERVISOR_TIMEOUT, and leaves no machine", async () => {
    const ended = await bootshim(["run", `${host}/os/diskless:1`, "--timeout", "1", "-o", "json"], { root });
    expect([ended.exitCode, JSON.parse(ended.stderr)]).toMatchObject([75, {
      error: { code: "HYPERVISOR_TIMEOUT", retryable: true },
    }]);
    expect((await readdir(join(root, "machines"))).filter((name) => name.includes("run-"))).toEqual([]);
  });
});

describe("xml and qemu", () => {
  it("print a machine's definitions: schema-valid XML, and a command that boots when pasted into a shell", async () => {
    const argv = [`${host}/os/kernel:1`, "--machine", "paste", "--memory", "512MiB", "--network", "none"];
    const { machine } = await prepare(argv);
    const xml = await bootshim(["xml", "paste"], { root });
    expect(xml.stdout).toBe(await readFile(machine?.domainXml ?? "", "utf8"));
    await writeFile(join(work, "domain.xml"), xml.stdout);
    await run("virt-xml-validate", [join(work, "domain.xml"), "domain"]);
    const qemu = await bootshim(["qemu", "paste"], { root });
    // The guest's console is QEMU's standard output; its input must not be the test's.
    const { stdout } = await run("sh", ["-c", `${qemu.stdout.trimEnd()} < /dev/null`], { timeout: 100_000 });
    expect(parseGuestReport(stdout)).toMatchObject({ word: words.kernel, rootWord: words.root });
  });

  it("print an image's definitions without a machine, disks read-only", async () => {
    const { stdout } = await bootshim(["xml", `${host}/os/kernel:1`], { root });
    await writeFile(join(work, "image.xml"), stdout);
    await run("virt-xml-validate", [join(work, "image.xml"), "domain"]);
    expect(stdout).toContain("<readonly/>");
  });
});

describe("the cache on disk", () => {
  it("is closed to others, and blobs are read-only", async () => {
    const { layers } = await prepare([`${host}/os/kernel:1`]);
    for (const { path } of layers) expect((await stat(path)).mode & 0o337).toBe(0);
    for (const name of [root, join(root, "images"), join(root, "machines")]) {
      expect((await stat(name)).mode & 0o007).toBe(0);
    }
  });

  it("can be moved aside and used by another process at the same time", async () => {
    const results = await Promise.all(
      [1, 2, 3].map((n) => prepare([`${host}/os/bios:1`, "--machine", `side-${n}`], join(work, "shared"))),
    );
    expect(new Set(results.map((result) => result.manifestDigest)).size).toBe(1);
    expect(await problems(join(work, "shared"))).toEqual([]);
    await cp(join(work, "shared"), join(work, "copied"), { recursive: true });
  });
});
