/**
 * Every way in which an image can boot, under the real libvirtd: `prepare` and `start`, and the guest reports a word of
 * this run. Beside it, libvirt's own translation of our XML to a QEMU command, and QEMU's own view of its disks.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { HAS_ARM64_GUESTS, makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type LibvirtDaemons, startLibvirtDaemons } from "../support/libvirt_daemon.ts";
import { askQmp } from "../support/qmp.ts";
import { qemuEssentials } from "../support/qemu_essentials.ts";
import { randomWord } from "../support/random_word.ts";

const execute = promisify(execFile);
const COMMAND = fileURLToPath(new URL("../../scripts/bootshim", import.meta.url));
const word = randomWord();
const rootWord = randomWord();
const machines: string[] = [];

let daemons: LibvirtDaemons;
let work: string;
let root: string;

/** Builds an image of the parts, prepares a machine of it, and gives what `prepare` said. */
async function machine(parts: Readonly<Record<string, string>>, ...argv: string[]) {
  const id = `mode-${randomWord()}`;
  machines.push(id);
  const reference = `127.0.0.1:1/modes/${id}:1`;
  const config = Object.entries({ arch: "amd64", ...parts }).map(([key, value]) => `${key}=${value}`).join(
    ",",
  );
  await bootshimJson(["build", "--tag", reference, "--config", config], { root });
  const command = ["prepare", reference, "--machine", id, "--memory", "512MiB", "--network", "none", ...argv];
  const { machine } = prepareDocument.parse(await bootshimJson(command, { root }));
  if (!machine) throw new Error("prepare gave no machine");
  return machine;
}

async function reportOf(id: string) {
  expect(await bootshimJson(["start", id], { root })).toMatchObject({ state: "running" });
  // Looked at as a file, since a command for each look would take its time from the guest's.
  const log = join(root, "machines", id, "console.log");
  for (let tries = 0; tries < 400; tries++) {
    if ((await readFile(log, "utf8").catch(() => "")).includes("BOOTSHIM-GUEST end=ok")) {
      return parseGuestReport((await bootshim(["console", id], { root })).stdout);
    }
    await wait(250);
  }
  throw new Error("the guest did not report in time");
}

async function arm64Kernel(): Promise<Record<string, string>> {
  return {
    arch: "arm64",
    kernel: await makeGuestPart("kernel", { architecture: "arm64" }),
    initramfs: await makeGuestPart("initramfs", { architecture: "arm64", word }),
    rootfs: await makeGuestPart("rootfs-ext4", { architecture: "arm64", word: rootWord }),
    cmdline: await cmdlineFile("console=ttyAMA0 quiet"),
  };
}

async function cmdlineFile(text: string): Promise<string> {
  const path = join(work, `cmdline-${randomWord()}`);
  await writeFile(path, text);
  return path;
}

beforeAll(async () => {
  daemons = await startLibvirtDaemons();
  work = await mkdtemp(join(tmpdir(), "bootshim-modes-"));
  await chmod(work, 0o755);
  root = join(work, "root");
});

afterEach(async () => {
  for (const id of machines.splice(0)) {
    await bootshim(["destroy", id], { root });
    await bootshim(["release", id], { root });
  }
});

afterAll(async () => {
  await daemons.stop();
  await rm(work, { recursive: true, force: true });
});

describe("libvirt boots", () => {
  it("a kernel with an ext4 root", async () => {
    const { id, uuid } = await machine(
      {
        kernel: await makeGuestPart("kernel"),
        initramfs: await makeGuestPart("initramfs", { word }),
        rootfs: await makeGuestPart("rootfs-ext4", { word: rootWord }),
        cmdline: await cmdlineFile(`console=ttyS0 quiet shim.word=${word},b`),
      },
      "--disk-size",
      "40MiB",
    );
    expect(await reportOf(id)).toMatchObject({
      word,
      uuid,
      rootWord,
      firmware: "none",
      serialNumber: id,
      shimWord: `${word},b`,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: 40 * 2 ** 20, readOnly: false }],
    });
  });

  it("a kernel with a squashfs root, read-only", async () => {
    const { id } = await machine({
      kernel: await makeGuestPart("kernel"),
      initramfs: await makeGuestPart("initramfs", { word }),
      squashfs: await makeGuestPart("rootfs-squashfs", { word: rootWord }),
      cmdline: await cmdlineFile("console=ttyS0 quiet root=/dev/vda ro"),
    });
    expect(await reportOf(id)).toMatchObject({
      word,
      rootWord,
      disks: [{ name: "vda", serial: "machineboot", readOnly: true }],
    });
  });

  it("a BIOS disk", async () => {
    const { id, uuid } = await machine({ rootfs: await makeGuestPart("disk-bios", { word }) });
    expect(await reportOf(id)).toMatchObject({ word, uuid, firmware: "bios", serialNumber: id });
  });

  it("a UEFI disk", async () => {
    const { id, uuid } = await machine({ rootfs: await makeGuestPart("disk-uefi", { word }) });
    expect(await reportOf(id)).toMatchObject({ word, uuid, firmware: "uefi", serialNumber: id });
  });

  it("a UKI", async () => {
    const { id } = await machine({ uki: await makeGuestPart("uki", { word }) });
    expect(await reportOf(id)).toMatchObject({ word, firmware: "uefi" });
  });

  it.each(["bios", "uefi"])("an ISO under %s, with a scratch disk beside it", async (firmware) => {
    const parts = { iso: await makeGuestPart("iso", { word }) };
    const { id } = await machine(parts, "--firmware", firmware, "--disk-size", "32MiB");
    expect(await reportOf(id)).toMatchObject({
      word,
      isoWord: word,
      firmware,
      disks: [{ serial: "scratch", sizeBytes: 32 * 2 ** 20, readOnly: false }],
    });
  });

  it.each(["auto", "uefi"])("an arm64 kernel, emulated, with firmware %s", async (firmware) => {
    const wishes = ["--arch", "arm64", "--boot", "kernel", "--firmware", firmware];
    const { id } = await machine(await arm64Kernel(), ...wishes);
    expect(await reportOf(id)).toMatchObject({
      word,
      rootWord,
      architecture: "arm64",
      disks: [{ name: "vda", serial: "machineboot" }],
    });
  });
});

describe.skipIf(!HAS_ARM64_GUESTS)("libvirt boots arm64 by its firmware, emulated", () => {
  it.each([["rootfs", "disk-uefi"], ["uki", "uki"], ["iso", "iso"]] as const)(
    "from a %s",
    async (role, kind) => {
      const part = await makeGuestPart(kind, { architecture: "arm64", word });
      const { id, uuid } = await machine({ arch: "arm64", [role]: part }, "--arch", "arm64");
      expect(await reportOf(id)).toMatchObject({
        word,
        uuid,
        architecture: "arm64",
        firmware: "uefi",
        serialNumber: id,
      });
    },
  );
});

describe("libvirt's own translation of our XML agrees with our QEMU command", () => {
  async function bothCommands(parts: Readonly<Record<string, string>>, ...argv: string[]) {
    const made = await machine(parts, ...argv);
    const { stdout } = await execute("virsh", [
      ...["-c", "qemu:///system", "domxml-to-native", "qemu-argv", made.domainXml],
    ]);
    // One shell line, with its environment in front: a shell splits it for us.
    const split = await execute("sh", ["-c", `printf '%s\\0' ${stdout.trim()}`]);
    return { theirs: split.stdout.split("\0"), ours: made.qemuCommand };
  }

  it.each([
    [
      "a kernel with a root disk and a squashfs",
      async () => ({
        kernel: await makeGuestPart("kernel"),
        initramfs: await makeGuestPart("initramfs", { word }),
        rootfs: await makeGuestPart("rootfs-ext4", { word }),
        squashfs: await makeGuestPart("rootfs-squashfs", { word }),
        cmdline: await cmdlineFile(`console=ttyS0 quiet "a b" c,d=${word} '<&>'`),
      }),
      4,
      [],
    ],
    ["a BIOS disk", async () => ({ rootfs: await makeGuestPart("disk-bios", { word }) }), 3, []],
    ["a UEFI disk", async () => ({ rootfs: await makeGuestPart("disk-uefi", { word }) }), 3, [
      ...["--network", "user"],
    ]],
    [
      "a UEFI disk under Secure Boot, with a TPM",
      async () => ({
        rootfs: await makeGuestPart("disk-uefi", { word }),
      }),
      3,
      ["--secure-boot", "--tpm"],
    ],
    ["a UKI", async () => ({ uki: await makeGuestPart("uki", { word }) }), 2, []],
    ["an ISO with a disk to install to", async () => ({ iso: await makeGuestPart("iso", { word }) }), 4, [
      ...["--disk-size", "32MiB"],
    ]],
    ["an arm64 kernel with a root disk", async () => await arm64Kernel(), 3, ["--arch", "arm64"]],
    [
      "an arm64 UEFI disk",
      async () => ({
        arch: "arm64",
        rootfs: await makeGuestPart("disk-uefi", { architecture: "arm64", word }),
      }),
      3,
      ["--arch", "arm64"],
    ],
    [
      "an arm64 ISO",
      async () => ({
        arch: "arm64",
        iso: await makeGuestPart("iso", { architecture: "arm64", word }),
      }),
      3,
      ["--arch", "arm64"],
    ],
    ["an arm64 kernel under UEFI, with a TPM", async () => await arm64Kernel(), 3, [
      ...["--arch", "arm64", "--boot", "kernel", "--firmware", "uefi", "--tpm"],
    ]],
  ])("on %s", async (_what, parts, drives, wishes) => {
    const ignition = join(work, `ignition-${randomWord()}.json`);
    await writeFile(ignition, "{}");
    const userData = join(work, `user-data-${randomWord()}`);
    await writeFile(userData, "#cloud-config\n");
    const { theirs, ours } = await bothCommands(
      await parts(),
      ...["--ignition", ignition, "--user-data", userData, "--data-disk", "1GiB,own-serial", ...wishes],
    );
    const agreed = qemuEssentials(theirs);
    expect(agreed).toEqual(qemuEssentials(ours));
    expect(agreed.drives).toHaveLength(drives);
    for (const { chain } of agreed.drives) expect(chain.length).toBeGreaterThan(0);
  });
});

describe("QEMU's own view", () => {
  it("HI03 of the block nodes is what was asked: files, formats, chains and rights", async () => {
    const made = await machine({
      kernel: await makeGuestPart("kernel"),
      initramfs: await makeGuestPart("initramfs", { word }),
      rootfs: await makeGuestPart("rootfs-ext4", { word: rootWord }),
      squashfs: await makeGuestPart("rootfs-squashfs", { word }),
    });
    const [program = "", ...argv] = made.qemuCommand;
    // Paused: nothing of the guest runs, so nothing can change.
    const qemu = spawn(program, [...argv, "-S"], { stdio: "ignore" });
    const ended = once(qemu, "exit");
    try {
      const socketPath = join(made.directory, "qmp.sock");
      for (let tries = 0; tries < 200 && !await stat(socketPath).then(() => true, () => false); tries++) {
        await wait(50);
      }
      // HI07: nobody but its owner can connect.
      expect((await stat(socketPath)).mode & 0o022).toBe(0);
      const nodes = z.array(z.looseObject({
        drv: z.string(),
        file: z.string(),
        ro: z.boolean(),
        backing_file: z.string().optional(),
      })).parse(await askQmp(socketPath, "query-named-block-nodes"));
      const [overlay, squashfs] = made.disks;
      const seen = nodes.filter(({ drv }) => drv !== "file").map(({ drv, file, ro, backing_file }) => ({
        drv,
        file,
        ro,
        backing: backing_file ?? null,
      }));
      expect(seen.sort((a, b) => a.file < b.file ? -1 : 1)).toEqual(
        [
          { drv: "qcow2", file: overlay?.path, ro: false, backing: overlay?.backing?.path },
          { drv: "raw", file: overlay?.backing?.path, ro: true, backing: null },
          { drv: "raw", file: squashfs?.path, ro: true, backing: null },
        ].sort((a, b) => (a.file ?? "") < (b.file ?? "") ? -1 : 1),
      );
    } finally {
      qemu.kill("SIGKILL");
      await ended;
    }
  });

  it("HI08 LV17 of itself holds no environment of ours, no open file of ours, and a sandbox", async () => {
    const secret = randomWord();
    const made = await machine({
      kernel: await makeGuestPart("kernel"),
      initramfs: await makeGuestPart("initramfs", { word }),
    });
    const child = spawn(
      COMMAND,
      [
        "run",
        await imageOf(made.id),
        "--network",
        "none",
        "--append",
        "console=ttyS0",
        "--append",
        "panic=0",
      ],
      {
        stdio: ["ignore", "pipe", "ignore"],
        env: { ...process.env, BOOTSHIM_ROOT: root, BOOTSHIM_CONFIG: "/dev/null", SECRET: secret },
      },
    );
    const ended = once(child, "close");
    try {
      const pid = await qemuBelow(child.pid ?? 0);
      const read = (name: string) => readFile(`/proc/${pid}/${name}`, "utf8");
      expect(await read("environ")).not.toContain(secret);
      expect(await read("cmdline")).not.toContain(secret);
      // The filter is put on when QEMU has made its machine, and just before the guest's first step.
      for (let tries = 0; tries < 400 && !/^Seccomp:\s+2$/m.test(await read("status")); tries++) {
        await wait(50);
      }
      expect(await read("status")).toMatch(/^Seccomp:\s+2$/m);
      expect(await read("status")).toMatch(/^NoNewPrivs:\s+1$/m);
      const { stdout } = await execute("ls", ["-l", `/proc/${pid}/fd`]);
      expect(stdout).not.toMatch(/\/locks\//);
    } finally {
      child.kill("SIGTERM");
      await ended;
    }
  });
});

async function imageOf(id: string): Promise<string> {
  const { reference } = z.looseObject({ reference: z.string() }).parse(
    JSON.parse(await readFile(join(root, "machines", id, "machine.json"), "utf8")),
  );
  return reference;
}

/** The QEMU that a command of ours runs, once it is there. */
async function qemuBelow(parent: number): Promise<number> {
  for (let tries = 0; tries < 400; tries++) {
    const { stdout } = await execute("ps", ["-eo", "pid=,ppid=,comm="]);
    const rows = stdout.trim().split("\n").map((line) => line.trim().split(/\s+/));
    const family = new Set([String(parent)]);
    for (let round = 0; round < 4; round++) {
      for (const [pid = "", ppid = ""] of rows) if (family.has(ppid)) family.add(pid);
    }
    const found = rows.find(([pid = "", , name = ""]) => family.has(pid) && name.startsWith("qemu-system"));
    if (found) return Number(found[0]);
    await wait(50);
  }
  throw new Error("no QEMU was started in time");
}
