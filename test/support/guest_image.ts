import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll } from "vitest";
import { z } from "zod";

const SCRIPT = fileURLToPath(new URL("../../scripts/guest-image", import.meta.url));

/** False where the distribution's mirrors have no arm64, and scripts/setup went on without. */
export const HAS_ARM64_GUESTS = existsSync(
  new URL("../../.cache/guest-kernel-arm64/linuxaa64.efi.stub", import.meta.url),
);

/** What scripts/guest-image can make; it says what each is. */
export type GuestPartKind =
  | "kernel"
  | "initramfs"
  | "rootfs-ext4"
  | "rootfs-squashfs"
  | "uki"
  | "disk-uefi"
  | "disk-bios"
  | "iso";

export type GuestPartOptions = {
  /** amd64 when left out, and for disk-bios. */
  readonly architecture?: "amd64" | "arm64";
  readonly word?: string;
  readonly sizeMib?: number;
  readonly cmdline?: string;
};

let folder: Promise<string> | undefined;
const parts = new Map<string, Promise<string>>();

// Registered by the import itself, for the test file that imports: vitest gives each file modules of its own, and its
// workers end without an "exit" event.
afterAll(async () => {
  if (folder !== undefined) await rm(await folder, { recursive: true, force: true });
});

/**
 * The path of a real part of an operating system, made at the first call with these options in a test file. Tests share
 * it: copy it before writing. Takes 0.1 to 2 s.
 */
export function makeGuestPart(kind: GuestPartKind, options: GuestPartOptions = {}): Promise<string> {
  const flags = [
    ...(options.architecture === undefined ? [] : ["--arch", options.architecture]),
    ...(options.word === undefined ? [] : ["--word", options.word]),
    ...(options.sizeMib === undefined ? [] : ["--size-mib", String(options.sizeMib)]),
    ...(options.cmdline === undefined ? [] : ["--cmdline", options.cmdline]),
  ];
  const key = JSON.stringify([kind, ...flags]);
  const made = parts.get(key) ?? runGuestImage(kind, flags);
  parts.set(key, made);
  return made;
}

async function runGuestImage(kind: GuestPartKind, flags: readonly string[]): Promise<string> {
  folder ??= mkdtemp(join(tmpdir(), "bootshim-guest-parts-"));
  const path = join(await folder, `${parts.size}-${kind}`);
  await promisify(execFile)(SCRIPT, [kind, path, ...flags]);
  return path;
}

const flag = z.enum(["0", "1"]).transform((digit) => digit === "1");
const count = z.string().regex(/^[0-9]+$/).transform(Number);
const textOrNull = z.string().transform((text) => text === "" ? null : text);

const guestReport = z.object({
  word: z.string(),
  kernel: z.string(),
  architecture: z.string(),
  firmware: z.enum(["none", "bios", "uefi"]),
  /** SMBIOS product UUID; null when the machine has none. */
  uuid: textOrNull,
  /** SMBIOS product serial: the machine's id. */
  serialNumber: textOrNull,
  secureBoot: flag,
  /** Major version of the TPM's specification; null without a TPM. */
  tpm: textOrNull,
  cpus: count,
  memoryKib: count,
  cmdline: z.string(),
  /** What `shim.word=` on the command line said. */
  shimWord: z.string().nullable(),
  /** Virtio disks by name. */
  disks: z.array(z.object({ name: z.string(), serial: textOrNull, sizeBytes: count, readOnly: flag })),
  /** CD-ROM drives by name; `volume` is the disc's own name for itself. */
  cdroms: z.array(z.object({ name: z.string(), volume: textOrNull, sizeBytes: count })),
  /** /word on the CD; null when there is none. */
  isoWord: z.string().nullable(),
  /** Files under `opt/` that the hypervisor passed in. */
  fwCfg: z.array(z.object({ name: z.string(), sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
  /** Files of a cloud-init seed. */
  seed: z.array(z.object({ name: z.string(), sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
  /** /word on the disk that `root=` names; null when there is no `root=`. */
  rootWord: z.string().nullable(),
  /** How many boots have written to that disk, this one included; null when it is read-only. */
  rootBoots: count.nullable(),
  rootError: z.string().nullable(),
});

/** What a guest made by scripts/guest-image saw of its machine. */
export type GuestReport = z.infer<typeof guestReport>;

/**
 * Reads the guest's report out of everything its console printed.
 *
 * @throws when the guest did not report to the end; the message shows the end of the console's text
 */
export function parseGuestReport(consoleText: string): GuestReport {
  const facts = new Map<string, string>();
  const disks: unknown[] = [];
  const cdroms: unknown[] = [];
  const fwCfg: unknown[] = [];
  const seed: unknown[] = [];
  for (const line of consoleText.split(/\r*\n/)) {
    const [, key = "", value = ""] = /^BOOTSHIM-GUEST (\w+)=(.*)$/.exec(line) ?? [];
    const disk = /^(\S+) serial=(.*) sizeBytes=(\d+) readOnly=(\d)$/.exec(value);
    const cdrom = /^(\S+) volume=(.*) sizeBytes=(\d+)$/.exec(value);
    const file = /^(.*) sha256=(\S+)$/.exec(value);
    if (key === "disk" && disk) {
      disks.push({ name: disk[1], serial: disk[2], sizeBytes: disk[3], readOnly: disk[4] });
    } else if (key === "cdrom" && cdrom) {
      cdroms.push({ name: cdrom[1], volume: cdrom[2], sizeBytes: cdrom[3] });
    } else if (key === "fwCfg" && file) fwCfg.push({ name: file[1], sha256: file[2] });
    else if (key === "seed" && file) seed.push({ name: file[1], sha256: file[2] });
    else facts.set(key, value);
  }
  if (facts.get("end") !== "ok") {
    throw new Error(
      `the guest did not report to the end; its console ends with: ${consoleText.slice(-2000)}`,
    );
  }
  const optional = Object.fromEntries(
    ["shimWord", "isoWord", "rootWord", "rootBoots", "rootError"].map((key) => [key, facts.get(key) ?? null]),
  );
  return guestReport.parse({ ...Object.fromEntries(facts), ...optional, disks, cdroms, fwCfg, seed });
}
