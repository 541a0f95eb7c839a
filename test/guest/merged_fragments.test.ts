/** Fragments in a domain that is somebody else's, under root's libvirt with its defaults: what is cached stays the cache's. */
import { createHash, randomUUID } from "node:crypto";
import { execFile } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PrepareDocument, prepareDocument } from "../../src/agent/prepare_document.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type PrivateLibvirtd, startPrivateLibvirtd } from "../support/private_libvirtd.ts";
import { randomWord } from "../support/random_word.ts";

const execute = promisify(execFile);
const SLOW_MS = 240_000;

let libvirtd: PrivateLibvirtd;
let work: string;
let root: string;

beforeAll(async () => {
  libvirtd = await startPrivateLibvirtd();
  work = await mkdtemp(join(tmpdir(), "bootshim-merged-"));
  await chmod(work, 0o755);
  root = join(work, "root");
}, SLOW_MS);

afterAll(async () => {
  await libvirtd?.stop();
  await rm(work, { recursive: true, force: true });
});

const virsh = (...argv: string[]) => execute("virsh", ["-q", "-c", libvirtd.uri, ...argv]);

async function prepare(config: string): Promise<PrepareDocument> {
  const reference = `127.0.0.1:1/merged/${randomWord()}:1`;
  await bootshimJson(["build", "--tag", reference, "--config", `arch=amd64,${config}`], { root });
  const id = `merged-${randomWord()}`;
  return prepareDocument.parse(await bootshimJson(["prepare", reference, "--machine", id], { root }));
}

async function fragment(id: string, name: "os" | "disks"): Promise<string> {
  const { exitCode, stdout, stderr } = await bootshim(["xml", id, "--fragment", name], { root });
  expect([exitCode, stderr]).toEqual([0, ""]);
  return stdout;
}

/** A provider's domain: the two fragments, and what else it thinks a guest needs. */
function merge(os: string, disks: string, log: string): { name: string; xml: string } {
  const name = `provider-${randomWord()}`;
  const devices = disks.replace("<devices/>", "<devices></devices>")
    .replace("</devices>", `<serial type="pty"><log file="${log}" append="off"/></serial></devices>`);
  const xml =
    `<domain type="qemu"><name>${name}</name><uuid>${randomUUID()}</uuid><memory unit="MiB">512</memory>` +
    `${os}<features><acpi/></features><on_poweroff>destroy</on_poweroff>${devices}</domain>`;
  return { name, xml };
}

/** Owner, rights and bytes of every file of the cache. */
async function cached() {
  const folder = join(root, "images/blobs/sha256");
  return await Promise.all(
    (await readdir(folder)).sort().map(async (name) => {
      const { uid, gid, mode } = await stat(join(folder, name));
      const digest = createHash("sha256").update(await readFile(join(folder, name))).digest("hex");
      return { name, uid, gid, mode, isWhole: digest === name };
    }),
  );
}

describe("fragments merged into somebody's own domain", () => {
  it.each([
    ["a kernel with a root disk and a squashfs", async (word: string) => {
      const cmdline = join(work, "cmdline");
      await writeFile(cmdline, "console=ttyS0 quiet");
      return `kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart("initramfs", {
        word,
      })},` +
        `rootfs=${await makeGuestPart("rootfs-ext4")},squashfs=${await makeGuestPart("rootfs-squashfs")},` +
        `cmdline=${cmdline}`;
    }],
    ["a UEFI disk", async (word: string) => `rootfs=${await makeGuestPart("disk-uefi", { word })}`],
    ["a UKI", async (word: string) => `uki=${await makeGuestPart("uki", { word })}`],
    ["an ISO", async (word: string) => `iso=${await makeGuestPart("iso", { word })}`],
  ])("LV14 boot %s, and leave owner, rights and bytes of the cache as they are", async (_what, parts) => {
    const word = randomWord();
    const { machine } = await prepare(await parts(word));
    const id = machine?.id ?? "";
    const before = await cached();
    // Twice: what the first call made is there
    const [os, again] = [await fragment(id, "os"), await fragment(id, "os")];
    expect(again).toBe(os);
    const log = join(work, `${id}.log`);
    const { name, xml } = merge(os, await fragment(id, "disks"), log);
    const file = join(work, `${id}.xml`);
    await writeFile(file, xml);
    await virsh("define", file, "--validate");
    await virsh("start", name);
    expect(["running", await cached()]).toEqual(["running", before]);
    let text = "";
    for (let tries = 0; tries < 200 && !text.includes("BOOTSHIM-GUEST end=ok"); tries++) {
      await wait(300);
      text = await readFile(log, "utf8").catch(() => "");
    }
    expect(parseGuestReport(text)).toMatchObject({ word });
    await virsh("destroy", name).catch(() => {});
    expect(["over", await cached()]).toEqual(["over", before]);
    await virsh("undefine", name, "--keep-nvram");
    await bootshimJson(["release", id], { root });
  }, SLOW_MS);

  it("an image without machine has nothing of its own to boot from, so root is refused that part", async () => {
    const reference = `127.0.0.1:1/merged/${randomWord()}:1`;
    const config = `arch=amd64,kernel=${await makeGuestPart("kernel")},squashfs=${await makeGuestPart(
      "rootfs-squashfs",
    )}`;
    await bootshimJson(["build", "--tag", reference, "--config", config], { root });
    const ended = await bootshim(["xml", reference, "--fragment", "os", "-o", "json"], { root });
    expect([ended.exitCode, JSON.parse(ended.stderr).error]).toMatchObject([64, {
      code: "REQUEST_INVALID",
      details: { remedy: `run: bootshim prepare ${reference} --machine ID; then give that ID` },
    }]);
    const disks = await bootshim(["xml", reference, "--fragment", "disks"], { root });
    expect(disks.stdout).toContain('<seclabel model="dac" relabel="no"/>');
  });
});
