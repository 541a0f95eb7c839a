import { createHash, randomBytes, randomUUID } from "node:crypto";
import { copyFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { PreparedBoot } from "../../src/boot/prepared_boot.ts";
import { defineDomain, type DomainMachine } from "../../src/hypervisor/define_domain.ts";
import { renderQemuCommand } from "../../src/hypervisor/qemu_command/command.ts";
import { nodeFileSystem as fileSystem } from "../../src/host/file_system.ts";
import { writeOverlayFile } from "../../src/machine/disk_file.ts";
import { runQemu } from "../../src/qemu/qemu_process.ts";
import { makeGuestPart, parseGuestReport } from "../support/guest_image.ts";

const MIB = 1024 * 1024;
const word = `w${randomBytes(6).toString("hex")}`;
const release = await releaseOf("guest-kernel");
/** Null where the distribution's mirrors have no arm64. */
const arm64Release = await releaseOf("guest-kernel-arm64").catch(() => null);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-qemu-guest-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function releaseOf(guestKernel: string): Promise<string> {
  return (await readFile(new URL(`../../.cache/${guestKernel}/release`, import.meta.url), "utf8")).trim();
}

/** A machine written by hand: these tests are about the images and about running, not about our rendering. */
const MACHINE = [
  "qemu-system-x86_64",
  ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
  ...["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M", "-serial", "stdio"],
];

const disk = (path: string, { format = "raw", serial = "", readOnly = false } = {}) => [
  ...[
    "-drive",
    `if=none,id=${serial || "disk"},format=${format},file=${path},readonly=${readOnly ? "on" : "off"}`,
  ],
  ...["-device", `virtio-blk-pci,drive=${serial || "disk"}${serial ? `,serial=${serial}` : ""}`],
];

const boot = (args: readonly string[]) => run([...MACHINE, ...args]);

async function run(argv: readonly string[]) {
  let text = "";
  await runQemu(argv, {
    stdin: "ignore",
    timeoutMs: 60_000,
    onConsole: (bytes) => {
      text += Buffer.from(bytes).toString("latin1");
    },
  });
  return parseGuestReport(text);
}

const sha256 = async (path: string) => createHash("sha256").update(await readFile(path)).digest("hex");

/** What every guest reports on this machine type. */
const common = () => ({
  word,
  kernel: release,
  architecture: "amd64",
  cpus: 1,
  memoryKib: expect.any(Number),
  shimWord: null,
  cdroms: [],
  isoWord: null,
  fwCfg: [],
  serialNumber: expect.toBeOneOf([null, "Not Specified", expect.any(String)]),
  secureBoot: false,
  tpm: null,
  seed: [],
  rootWord: null,
  rootBoots: null,
  rootError: null,
});

describe("guest-image boots under runQemu", () => {
  it("kernel and initramfs, and reports command line, uuid, disks and passed-in files", async () => {
    const [kernel, initramfs, rootfs] = await Promise.all([
      makeGuestPart("kernel"),
      makeGuestPart("initramfs", { word }),
      makeGuestPart("rootfs-ext4", { word: "unused", sizeMib: 4 }),
    ]);
    const uuid = randomUUID();
    const cmdline = `console=ttyS0 quiet shim.word=${word},b`;
    const report = await boot([
      ...["-kernel", kernel, "-initrd", initramfs, "-append", cmdline, "-uuid", uuid],
      ...["-fw_cfg", `name=opt/com.coreos/config,string=${word}`],
      ...disk(rootfs, { serial: "machineboot", readOnly: true }),
    ]);
    expect(report).toEqual({
      ...common(),
      firmware: "none",
      uuid,
      cmdline,
      shimWord: `${word},b`,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: 4 * MIB, readOnly: true }],
      fwCfg: [{ name: "opt/com.coreos/config", sha256: createHash("sha256").update(word).digest("hex") }],
    });
  });

  it("a bare ext4 root through an overlay, which keeps the guest's writes while the base stays as it was", async () => {
    const [kernel, initramfs, base] = await Promise.all([
      makeGuestPart("kernel"),
      makeGuestPart("initramfs", { word }),
      makeGuestPart("rootfs-ext4", { word: `${word}-root` }),
    ]);
    const before = await sha256(base);
    const path = join(folder, "disk.qcow2");
    const overlay = { backingPath: base, backingFormat: "raw", virtualSizeBytes: 32 * MIB } as const;
    await writeOverlayFile(path, overlay, { fileSystem });
    const cmdline = "console=ttyS0 quiet root=/dev/disk/by-id/virtio-machineboot rw";
    const args = [
      ...["-kernel", kernel, "-initrd", initramfs, "-append", cmdline],
      ...disk(path, { format: "qcow2", serial: "machineboot" }),
    ];
    const expected = {
      ...common(),
      firmware: "none",
      uuid: null,
      cmdline,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: 32 * MIB, readOnly: false }],
      rootWord: `${word}-root`,
    };
    expect(await boot(args)).toEqual({ ...expected, rootBoots: 1 });
    expect(await boot(args)).toEqual({ ...expected, rootBoots: 2 });
    expect(await sha256(base)).toBe(before);
  });

  it("a squashfs root, read-only", async () => {
    const [kernel, initramfs, squashfs] = await Promise.all([
      makeGuestPart("kernel"),
      makeGuestPart("initramfs", { word }),
      makeGuestPart("rootfs-squashfs", { word: `${word}-squashfs` }),
    ]);
    const cmdline = "console=ttyS0 quiet root=/dev/vda";
    const args = ["-kernel", kernel, "-initrd", initramfs, "-append", cmdline];
    expect(await boot([...args, ...disk(squashfs, { readOnly: true })])).toEqual({
      ...common(),
      firmware: "none",
      uuid: null,
      cmdline,
      disks: [{ name: "vda", serial: null, sizeBytes: (await stat(squashfs)).size, readOnly: true }],
      rootWord: `${word}-squashfs`,
    });
  });

  it("a BIOS disk by its own boot loader", async () => {
    const path = await makeGuestPart("disk-bios", { word });
    const report = await boot(disk(path, { serial: "machineboot", readOnly: true }));
    expect(report).toEqual({
      ...common(),
      firmware: "bios",
      uuid: null,
      cmdline: "BOOT_IMAGE=/vmlinuz console=ttyS0 quiet panic=-1 initrd=/initrd.gz",
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: (await stat(path)).size, readOnly: true }],
    });
  });

  it("a UEFI disk by the unified kernel image in its system partition", async () => {
    const path = await makeGuestPart("disk-uefi", { word, cmdline: `console=ttyS0 quiet shim.word=${word}` });
    const variables = join(folder, "variables.fd");
    await copyFile("/usr/share/OVMF/OVMF_VARS_4M.fd", variables);
    const report = await boot([
      ...["-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"],
      ...["-drive", `if=pflash,unit=1,format=raw,file=${variables}`],
      ...disk(path, { serial: "machineboot", readOnly: true }),
    ]);
    expect(report).toEqual({
      ...common(),
      firmware: "uefi",
      uuid: null,
      cmdline: `console=ttyS0 quiet shim.word=${word}`,
      shimWord: word,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: (await stat(path)).size, readOnly: true }],
    });
  });
});

const UEFI = {
  loaderPath: "/usr/share/OVMF/OVMF_CODE_4M.fd",
  loaderFormat: "raw",
  nvramTemplatePath: "/usr/share/OVMF/OVMF_VARS_4M.fd",
  nvramTemplateFormat: "raw",
  secureBoot: false,
} as const;

const prepared: PreparedBoot = {
  architecture: "amd64",
  variant: "virtualization",
  mode: "kernel",
  firmware: "none",
  kernel: null,
  initramfs: null,
  uki: null,
  iso: null,
  cmdline: "console=ttyS0 quiet",
  reason: "",
  modes: [],
  disks: [],
};

describe("a command of renderQemuCommand boots", () => {
  const uuid = randomUUID();

  /** A machine of its own, with a fresh variable store. */
  async function bootPrepared(
    change: Partial<PreparedBoot>,
    disks: DomainMachine["disks"] = [],
  ) {
    const directory = await mkdtemp(join(folder, "machine-"));
    const nvramPath = join(directory, "nvram.fd");
    await copyFile(UEFI.nvramTemplatePath, nvramPath);
    const definition = defineDomain({
      boot: { ...prepared, ...change },
      machine: {
        id: "vm",
        uuid,
        disks,
        nvramPath,
        consoleLogPath: join(directory, "console.log"),
        ignitionPath: null,
        runtimeDirectory: directory,
      },
      wishes: {
        memoryMib: 512,
        hugepages: false,
        cpus: 1,
        tpm: false,
        secureBoot: false,
        network: { kind: "none" },
      },
      host: { acceleration: "tcg", uefiFirmware: { firmware: UEFI }, keepOwnership: false },
    });
    return await run(renderQemuCommand(definition));
  }

  it("a unified kernel image under UEFI, with the command line it holds", async () => {
    const cmdline = `console=ttyS0 quiet shim.word=${word}`;
    const uki = await makeGuestPart("uki", { word, cmdline });
    expect(await bootPrepared({ mode: "uki", firmware: "uefi", uki, cmdline: "not=used" })).toEqual({
      ...common(),
      firmware: "uefi",
      uuid,
      cmdline,
      shimWord: word,
      disks: [],
    });
  });

  it("an EFI program as kernel under UEFI, with initramfs, command line and a squashfs root", async () => {
    const [kernel, initramfs, squashfs] = await Promise.all([
      makeGuestPart("kernel"),
      makeGuestPart("initramfs", { word }),
      makeGuestPart("rootfs-squashfs", { word: `${word}-squashfs` }),
    ]);
    const cmdline = `console=ttyS0 quiet root=/dev/vda shim.word=${word},b`;
    const root = {
      path: squashfs,
      format: "raw",
      readOnly: true,
      serial: "machineboot",
      backing: null,
    } as const;
    const report = await bootPrepared({ firmware: "uefi", kernel, initramfs, cmdline }, [root]);
    expect(report).toEqual({
      ...common(),
      firmware: "uefi",
      uuid,
      // OVMF's own addition, for kernels that look for an initramfs there.
      cmdline: `${cmdline} initrd=initrd`,
      shimWord: `${word},b`,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: (await stat(squashfs)).size, readOnly: true }],
      rootWord: `${word}-squashfs`,
    });
  });

  it.skipIf(arm64Release === null)("an arm64 kernel and initramfs with an ext4 root", async () => {
    const architecture = "arm64";
    const [kernel, initramfs, rootfs] = await Promise.all([
      makeGuestPart("kernel", { architecture }),
      makeGuestPart("initramfs", { architecture, word }),
      makeGuestPart("rootfs-ext4", { word: `${word}-root`, sizeMib: 4 }),
    ]);
    const cmdline = "console=ttyAMA0 quiet root=/dev/vda ro";
    const root = {
      path: rootfs,
      format: "raw",
      readOnly: true,
      serial: "machineboot",
      backing: null,
    } as const;
    expect(await bootPrepared({ architecture, kernel, initramfs, cmdline }, [root])).toEqual({
      ...common(),
      kernel: arm64Release,
      architecture,
      firmware: "none",
      // The device tree has no SMBIOS, and so no uuid.
      uuid: null,
      cmdline,
      disks: [{ name: "vda", serial: "machineboot", sizeBytes: 4 * MIB, readOnly: true }],
      rootWord: `${word}-root`,
    });
  });

  it("an ISO under BIOS, with an empty disk beside it", async () => {
    const iso = await makeGuestPart("iso", { word });
    const path = join(folder, "scratch.raw");
    await writeFile(path, "");
    await truncate(path, 4 * MIB);
    const scratch = { path, format: "raw", readOnly: false, serial: "scratch", backing: null } as const;
    expect(await bootPrepared({ mode: "iso", firmware: "bios", iso }, [scratch])).toEqual({
      ...common(),
      firmware: "bios",
      uuid,
      cmdline: "BOOT_IMAGE=/vmlinuz console=ttyS0 quiet panic=-1 initrd=/initrd.gz",
      disks: [{ name: "vda", serial: "scratch", sizeBytes: 4 * MIB, readOnly: false }],
      cdroms: [{ name: "sr0", volume: "BOOTSHIM", sizeBytes: (await stat(iso)).size }],
      isoWord: word,
    });
  });

  it("an ISO under UEFI, without any disk", async () => {
    const iso = await makeGuestPart("iso", { word });
    expect(await bootPrepared({ mode: "iso", firmware: "uefi", iso })).toEqual({
      ...common(),
      firmware: "uefi",
      uuid,
      cmdline: "console=ttyS0 quiet panic=-1",
      disks: [],
      cdroms: [{ name: "sr0", volume: "BOOTSHIM", sizeBytes: (await stat(iso)).size }],
      isoWord: word,
    });
  });
});

describe("guest-image", () => {
  const script = new URL("../../scripts/guest-image", import.meta.url).pathname;
  const make = (args: readonly string[], options: { cwd?: string; tmp?: string } = {}) =>
    execFileSync(script, args, {
      cwd: options.cwd ?? "/",
      stdio: "pipe",
      env: { PATH: process.env["PATH"] ?? "", TMPDIR: options.tmp ?? folder },
    });

  it("gives the same bytes for the same wishes, at another time and from another place, and leaves nothing else", async () => {
    const place = await mkdtemp(join(folder, "place-"));
    const first = [];
    const second = [];
    const kinds = ["rootfs-ext4", "rootfs-squashfs", "disk-uefi", "disk-bios", "iso"];
    for (const kind of kinds) {
      make([kind, join(place, `${kind}-1`), "--word", word], { tmp: place });
      first.push(await sha256(join(place, `${kind}-1`)));
    }
    for (const kind of kinds) {
      make([kind, `${kind}-2`, "--word", word], { cwd: place, tmp: "/tmp" });
      second.push(await sha256(join(place, `${kind}-2`)));
    }
    expect(second).toEqual(first);
    const listed = execFileSync("ls", [place], { encoding: "utf8" }).trim().split("\n");
    expect(listed).toEqual(kinds.flatMap((kind) => [`${kind}-1`, `${kind}-2`]).sort());
  });

  it("refuses wrong usage with exit code 64 and explains itself with 0", () => {
    const exitCode = (args: readonly string[]) => {
      try {
        make(args);
        return 0;
      } catch (error) {
        return error instanceof Error && "status" in error ? error.status : error;
      }
    };
    const output = join(folder, "refused");
    expect([
      exitCode(["--help"]),
      exitCode([]),
      exitCode(["kernel"]),
      exitCode(["floppy", output]),
      exitCode(["kernel", output, "--word", "two words"]),
      exitCode(["kernel", output, "--size"]),
      exitCode(["rootfs-ext4", output, "--size-mib", "-1"]),
      exitCode(["uki", output, "--cmdline", "a\nb"]),
      exitCode(["disk-bios", output, "--arch", "arm64"]),
      exitCode(["kernel", output, "--arch", "../x"]),
    ]).toEqual([0, 64, 64, 64, 64, 64, 64, 64, 64, 64]);
  });
});
