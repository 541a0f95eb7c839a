/** A prepared machine under the real libvirtd with its defaults, as root: the command defines, starts and ends it. */
import { createHash } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type LibvirtDaemons, startLibvirtDaemons } from "../support/libvirt_daemon.ts";
import { randomWord } from "../support/random_word.ts";

const words = { kernel: randomWord(), root: randomWord(), uefi: randomWord() };
/** Machine ids are libvirt names: one daemon serves every run on this host. */
const ids = { kernel: `line-${randomWord()}`, uefi: `uefi-${randomWord()}` };
const images = { kernel: "127.0.0.1:1/os/kernel:1", uefi: "127.0.0.1:1/os/uefi:1" };

let daemons: LibvirtDaemons;
let work: string;
let root: string;

async function prepare(image: string, id: string) {
  return prepareDocument.parse(
    await bootshimJson(["prepare", image, "--machine", id, "--memory", "512MiB", "--network", "none"], {
      root,
    }),
  );
}

/** Waits for the guest to power off by itself, as an operator would: by following its console until it said the end. */
async function consoleUntilEnd(id: string): Promise<string> {
  for (let tries = 0; tries < 120; tries++) {
    const { stdout } = await bootshim(["console", id], { root });
    if (stdout.includes("Power down") || stdout.includes("BOOTSHIM-GUEST end=ok")) return stdout;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`guest "${id}" did not report in time`);
}

async function stateOf(id: string): Promise<unknown> {
  // Starting what runs changes nothing, so this only asks when it is off; undefine and destroy tell the rest.
  const ended = await bootshim(["destroy", id, "-o", "json"], { root });
  return ended.exitCode === 0 ? "was running" : JSON.parse(ended.stderr).error.code;
}

async function ownership(path: string) {
  const { uid, gid, mode } = await stat(path);
  return { uid, gid, mode, digest: createHash("sha256").update(await readFile(path)).digest("hex") };
}

beforeAll(async () => {
  daemons = await startLibvirtDaemons();
  // QEMU's user has to get to the files through every directory above them.
  work = await mkdtemp(join(tmpdir(), "bootshim-libvirt-"));
  await chmod(work, 0o755);
  root = join(work, "root");
  await writeFile(join(work, "cmdline"), "console=ttyS0 quiet panic=-1\n");
  const kernel = `arch=amd64,kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart(
    "initramfs",
    { word: words.kernel },
  )},rootfs=${await makeGuestPart("rootfs-ext4", { word: words.root })},cmdline=${join(work, "cmdline")}`;
  const uefi = `arch=amd64,rootfs=${await makeGuestPart("disk-uefi", { word: words.uefi })}`;
  await bootshimJson(["build", "--tag", images.kernel, "--config", kernel], { root });
  await bootshimJson(["build", "--tag", images.uefi, "--config", uefi], { root });
});

afterAll(async () => {
  for (const id of Object.values(ids)) {
    await bootshim(["destroy", id], { root });
    await bootshim(["release", id], { root });
  }
  await daemons.stop();
  await rm(work, { recursive: true, force: true });
});

describe("a machine booted by kernel", () => {
  it("is defined, started, reports from inside, and is undefined and released; the cache keeps owner, mode and bytes", async () => {
    const { machine, layers } = await prepare(images.kernel, ids.kernel);
    const before = await Promise.all(layers.map((layer) => ownership(layer.path)));

    expect(await bootshimJson(["define", ids.kernel], { root })).toEqual({
      id: ids.kernel,
      uuid: machine?.uuid,
      state: "shut off",
    });
    expect(await bootshimJson(["define", ids.kernel], { root })).toMatchObject({ state: "shut off" });
    expect(await bootshimJson(["start", ids.kernel], { root })).toEqual({
      id: ids.kernel,
      uuid: machine?.uuid,
      state: "running",
    });

    const inUse = await bootshim(["release", ids.kernel, "-o", "json"], { root });
    expect([inUse.exitCode, JSON.parse(inUse.stderr)]).toMatchObject([73, { error: { code: "IN_USE" } }]);

    expect(parseGuestReport(await consoleUntilEnd(ids.kernel))).toMatchObject({
      word: words.kernel,
      rootWord: words.root,
      uuid: machine?.uuid,
      firmware: "none",
      cmdline: "console=ttyS0 quiet panic=-1 root=/dev/vda rw",
      disks: [{ name: "vda", serial: "machineboot", readOnly: false }],
    });
    await bootshim(["destroy", ids.kernel], { root });
    expect(await Promise.all(layers.map((layer) => ownership(layer.path)))).toEqual(before);

    expect(await bootshimJson(["undefine", ids.kernel], { root })).toMatchObject({ state: "undefined" });
    expect(await stateOf(ids.kernel)).toBe("MACHINE_NOT_FOUND");
    expect(await bootshimJson(["release", ids.kernel], { root })).toEqual({ id: ids.kernel });
    await expect(stat(machine?.directory ?? "")).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("a machine booted by UEFI disk", () => {
  it("starts without define, and has a variable store of its own", async () => {
    const { machine } = await prepare(images.uefi, ids.uefi);
    expect(machine?.nvram).toBe(`${machine?.directory}/nvram.fd`);
    expect(await bootshimJson(["start", ids.uefi], { root })).toMatchObject({ state: "running" });
    expect(parseGuestReport(await consoleUntilEnd(ids.uefi))).toMatchObject({
      word: words.uefi,
      firmware: "uefi",
      uuid: machine?.uuid,
    });
    await bootshim(["destroy", ids.uefi], { root });
    expect(await bootshimJson(["release", ids.uefi], { root })).toEqual({ id: ids.uefi });
  });
});

describe("libvirt's own words", () => {
  it("are in our error", async () => {
    const ended = await bootshim(["define", "nobody", "-o", "json"], { root });
    expect([ended.exitCode, JSON.parse(ended.stderr)]).toMatchObject([66, {
      error: { code: "MACHINE_NOT_FOUND" },
    }]);
    const elsewhere = await bootshim([
      "start",
      ids.kernel,
      "--connect",
      "qemu+unix:///system?socket=/nowhere",
    ], { root });
    expect([69, 66]).toContain(elsewhere.exitCode);
    const { machine } = await prepare(images.kernel, ids.kernel);
    const xml = await readFile(machine?.domainXml ?? "", "utf8");
    await chmod(machine?.domainXml ?? "", 0o600);
    await writeFile(machine?.domainXml ?? "", xml.replace("<vcpu>1</vcpu>", "<vcpu>none</vcpu>"));
    const invalid = await bootshim(["define", ids.kernel, "-o", "json"], { root });
    expect(JSON.parse(invalid.stderr)).toMatchObject({
      error: {
        code: "DOMAIN_INVALID",
        message: expect.stringContaining("libvirt reports"),
        details: { libvirtCode: expect.any(Number) },
      },
    });
  });
});
