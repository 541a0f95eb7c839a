/**
 * What a provider hands a guest arrives in it: Ignition, cloud-init's seed, data disks, a TPM, the machine's id. Under
 * plain QEMU by `run`, and under the real libvirtd by `start`; the guest itself says what it found.
 */
import { createHash } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { type GuestReport, makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type LibvirtDaemons, startLibvirtDaemons } from "../support/libvirt_daemon.ts";
import { randomWord } from "../support/random_word.ts";

const word = randomWord();
const id = `given-${randomWord()}`;
const uefiId = `given-${randomWord()}`;
const images = { kernel: "127.0.0.1:1/os/kernel:1", uefi: "127.0.0.1:1/os/uefi:1" };
const contents = {
  ignition: JSON.stringify({ ignition: { version: "3.4.0" }, storage: { files: [{ path: `/${word}` }] } }),
  userData: `#cloud-config\nhostname: ${word}\n`,
  metadata: `instance-id: ${word}\n`,
};

let daemons: LibvirtDaemons;
let work: string;
let root: string;
let wishes: string[];

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/** What any guest with these wishes must report, under either hypervisor. */
function expectProvisioned(report: GuestReport): void {
  expect(report).toMatchObject({
    word,
    tpm: "2",
    fwCfg: expect.arrayContaining([{ name: "opt/com.coreos/config", sha256: sha256(contents.ignition) }]),
    seed: [
      { name: "meta-data", sha256: sha256(contents.metadata) },
      { name: "user-data", sha256: sha256(contents.userData) },
    ],
    disks: [
      { name: "vda", serial: "data1", sizeBytes: 64 * 2 ** 20, readOnly: false },
      { name: "vdb", serial: "logs", sizeBytes: 2 ** 30, readOnly: false },
      { name: "vdc", serial: "cidata", readOnly: true },
    ],
  });
}

beforeAll(async () => {
  daemons = await startLibvirtDaemons();
  work = await mkdtemp(join(tmpdir(), "bootshim-given-"));
  await chmod(work, 0o755);
  root = join(work, "root");
  for (const [name, text] of Object.entries(contents)) await writeFile(join(work, name), text);
  wishes = [
    ...["--ignition", join(work, "ignition"), "--user-data", join(work, "userData")],
    ...["--metadata", join(work, "metadata"), "--data-disk", "64MiB", "--data-disk", "1GiB,logs"],
    ...["--tpm", "--network", "none", "--memory", "512MiB", "--append", "console=ttyS0", "--append", "quiet"],
  ];
  const kernel = await makeGuestPart("kernel");
  const initramfs = await makeGuestPart("initramfs", { word });
  const uefi = await makeGuestPart("disk-uefi", { word });
  const build = (tag: string, config: string) =>
    bootshimJson(["build", "--tag", tag, "--config", config], { root });
  await build(images.kernel, `arch=amd64,kernel=${kernel},initramfs=${initramfs}`);
  await build(images.uefi, `arch=amd64,rootfs=${uefi}`);
});

afterAll(async () => {
  for (const each of [id, uefiId]) {
    await bootshim(["destroy", each], { root });
    await bootshim(["release", each], { root });
  }
  await daemons.stop();
  await rm(work, { recursive: true, force: true });
});

describe("a guest finds what it was given", () => {
  it("under plain QEMU", async () => {
    const { exitCode, stdout, stderr } = await bootshim(
      ["run", images.kernel, ...wishes, "--timeout", "90"],
      {
        root,
      },
    );
    expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" });
    expectProvisioned(parseGuestReport(stdout));
  });

  it("under libvirt, with the machine's id as its serial number", async () => {
    await bootshimJson(["prepare", images.kernel, "--machine", id, ...wishes], { root });
    expect(await bootshimJson(["start", id], { root })).toMatchObject({ state: "running" });
    const report = parseGuestReport(await consoleUntilEnd(id));
    expectProvisioned(report);
    expect(report.serialNumber).toBe(id);
    // Domains with a TPM take its state along.
    await bootshim(["destroy", id], { root });
    expect(await bootshimJson(["undefine", id], { root })).toMatchObject({ state: "undefined" });
  });

  it("under libvirt from a UEFI disk, whose cached layer keeps owner, mode and bytes", async () => {
    const argv = [
      "prepare",
      images.uefi,
      "--machine",
      uefiId,
      "--tpm",
      "--network",
      "none",
      "--memory",
      "512MiB",
    ];
    const { layers } = await bootshimJson(argv, { root }) as { layers: { path: string }[] };
    const look = () =>
      Promise.all(layers.map(async ({ path }) => {
        const { uid, gid, mode } = await stat(path);
        return { uid, gid, mode, sha256: createHash("sha256").update(await readFile(path)).digest("hex") };
      }));
    const before = await look();
    await bootshimJson(["start", uefiId], { root });
    expect(await look()).toEqual(before);
    expect(parseGuestReport(await consoleUntilEnd(uefiId))).toMatchObject({
      word,
      tpm: "2",
      firmware: "uefi",
    });
    await bootshim(["destroy", uefiId], { root });
    expect(await look()).toEqual(before);
  });

  it("and preparing again with another content is a conflict that does not quote it", async () => {
    const secret = randomWord();
    const other = join(work, "other");
    await writeFile(other, secret);
    const { exitCode, stderr } = await bootshim(
      ["prepare", images.kernel, "--machine", id, ...wishes, "--user-data", other, "-o", "json"],
      { root },
    );
    expect([exitCode, JSON.parse(stderr)]).toMatchObject([73, {
      error: { code: "CONFLICT", details: { differing: ["userData"] } },
    }]);
    expect(stderr).not.toContain(secret);
  });
});

describe("huge pages", () => {
  it("are refused before anything is made, when the host has not as many", async () => {
    // More than any host has, and the most that can be asked for.
    const wish = ["--machine", `huge-${randomWord()}`, "--hugepages", "--memory", "16TiB"];
    const { exitCode, stderr } = await bootshim(["prepare", images.kernel, ...wish, "-o", "json"], { root });
    expect([exitCode, JSON.parse(stderr)]).toMatchObject([69, {
      error: {
        code: "HYPERVISOR_UNAVAILABLE",
        message: expect.stringMatching(/^Cannot give \d+ MiB of huge pages: \d+ MiB of them are free/),
        details: { remedy: expect.stringContaining("vm.nr_hugepages") },
      },
    }]);
    await expect(stat(join(root, "machines", wish[1] ?? ""))).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("Secure Boot", () => {
  it("lets no unsigned disk start, which starts without it", async () => {
    const run = (...argv: string[]) =>
      bootshim(["run", images.uefi, "--network", "none", "--memory", "512MiB", ...argv], { root });
    const plain = await run("--timeout", "90");
    expect(parseGuestReport(plain.stdout)).toMatchObject({ word, firmware: "uefi", secureBoot: false });
    const secure = await run("--secure-boot", "--timeout", "20", "-o", "json");
    expect(secure.stdout).toMatch(/Access Denied|Security Violation/);
    expect(secure.stdout).not.toContain(word);
    expect(secure.exitCode).not.toBe(0);
  });

  it("is refused where there is no UEFI, with the reason", async () => {
    const { exitCode, stderr } = await bootshim(["run", images.kernel, "--secure-boot", "-o", "json"], {
      root,
    });
    expect([exitCode, JSON.parse(stderr)]).toMatchObject([65, { error: { code: "BOOT_MODE_IMPOSSIBLE" } }]);
  });
});

async function consoleUntilEnd(id: string): Promise<string> {
  for (let tries = 0; tries < 120; tries++) {
    const { stdout } = await bootshim(["console", id], { root });
    if (stdout.includes("BOOTSHIM-GUEST end=ok")) return stdout;
    await wait(500);
  }
  throw new Error("the guest did not report in time");
}
