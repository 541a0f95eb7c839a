import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { ShimError, toShimError } from "../errors.ts";
import { writeDurably } from "../host/durable.ts";
import { nodeFileSystem } from "../host/file_system.ts";
import { takeLock } from "../host/flock.ts";
import { freeHugePageBytes } from "../host/huge_pages.ts";
import { lockDirectoryOf } from "../host/root_directory.ts";
import type { DomainWishes } from "../hypervisor/define_domain.ts";
import {
  chooseUefiFirmware,
  firmwareDescriptorSchema,
  type UefiFirmwareChoice,
} from "../hypervisor/firmware.ts";
import type { Acceleration } from "../hypervisor/domain_definition.ts";
import type { Architecture } from "../image/platform.ts";
import {
  type AccelerationVerdict,
  probeAcceleration,
  probeKey,
  type ProbeOptions,
} from "../qemu/acceleration_probe.ts";
import { readFirmwareDescriptors } from "../qemu/firmware_descriptors.ts";
import { type ProgramEnvironment, requireProgram } from "../qemu/program_path.ts";
import type { AgentContext } from "./agent_context.ts";

const BYTES_PER_MIB = 2 ** 20;

const keptVerdict = z.object({ key: z.string(), acceleration: z.enum(["kvm", "tcg"]), evidence: z.string() });

/** Longer than another process needs to find out: what hangs is not waited for. */
const OTHER_PROBE_MS = 10_000;

type AccelerationWish = {
  readonly architecture: Architecture;
  readonly acceleration: Acceleration | "auto";
  readonly signal?: AbortSignal | undefined;
};

/**
 * The acceleration to use: the wished one, or with `auto` KVM where it was seen to work.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE without QEMU for the architecture
 */
export async function chooseAcceleration(
  context: AgentContext,
  wish: AccelerationWish,
): Promise<Acceleration> {
  if (wish.acceleration !== "auto") return wish.acceleration;
  return (await accelerationVerdict(context, wish)).acceleration;
}

/**
 * The probe's verdict. A KVM that only pretends costs 3 s to find out, so verdicts are kept until the host reboots, and
 * one probe is for all who ask, in this process and in others.
 */
export async function accelerationVerdict(
  context: AgentContext,
  { architecture, signal }: Pick<AccelerationWish, "architecture" | "signal">,
): Promise<AccelerationVerdict> {
  const probe = { architecture, hostArchitecture: context.hostArchitecture };
  return await context.acceleration.learn(
    architecture,
    (signal) => keptOrProbed(context.rootDirectory, { ...probe, signal }),
    signal,
  );
}

async function keptOrProbed(rootDirectory: string, probe: ProbeOptions): Promise<AccelerationVerdict> {
  const { architecture, signal } = probe;
  const key = await probeKey(probe);
  const path = join(rootDirectory, `acceleration-${architecture}.json`);
  const kept = await readVerdict(path, key);
  if (kept) return kept;
  const lockPath = join(lockDirectoryOf(rootDirectory), `acceleration-${architecture}`);
  const lock = await takeLock(lockPath, { mode: "exclusive", timeoutMs: OTHER_PROBE_MS, signal })
    .catch((error: unknown) => {
      // Whoever holds it hangs. Two probes beside each other do no harm.
      if (toShimError(error).code === "LOCK_TIMEOUT") return null;
      throw error;
    });
  try {
    const found = await readVerdict(path, key);
    if (found) return found;
    const verdict = await probeAcceleration(probe);
    const bytes = new TextEncoder().encode(JSON.stringify({ key, ...verdict }) + "\n");
    await writeDurably(path, bytes, { mode: 0o600, groupId: null, fileSystem: nodeFileSystem });
    return verdict;
  } finally {
    await lock?.release();
  }
}

async function readVerdict(path: string, key: string): Promise<AccelerationVerdict | undefined> {
  try {
    const kept = keptVerdict.parse(JSON.parse(await readFile(path, "utf8")));
    return kept.key === key ? { acceleration: kept.acceleration, evidence: kept.evidence } : undefined;
  } catch {
    // Missing or not ours to read: the verdict is found out anew, which is always right.
    return undefined;
  }
}

/** The host's UEFI firmware for an architecture, plain or with Secure Boot, or why there is none. Descriptors of unknown form are passed over. */
export async function chooseFirmware(
  context: AgentContext,
  architecture: Architecture,
  { secureBoot = false }: { readonly secureBoot?: boolean } = {},
): Promise<UefiFirmwareChoice> {
  const files = await readFirmwareDescriptors({ configHome: context.configHome });
  const descriptors = files.flatMap(({ json }) => {
    const parsed = firmwareDescriptorSchema.safeParse(json);
    return parsed.success ? [parsed.data] : [];
  });
  return chooseUefiFirmware(descriptors, { architecture, secureBoot });
}

/** Both are needed: libvirt makes a new TPM's keys by the second. */
export const TPM_PROGRAMS = ["swtpm", "swtpm_setup"] as const;

/** Where a host's parts are looked for; tests look elsewhere. */
export type HostPlaces = {
  readonly environment?: ProgramEnvironment;
  readonly memoryInfoPath?: string;
};

/** What `--hugepages` can have, whole MiB. */
export async function freeHugePagesMib(memoryInfoPath?: string): Promise<number> {
  return Math.floor(await freeHugePageBytes(memoryInfoPath) / BYTES_PER_MIB);
}

/**
 * Refuses what this host has no parts for, before anything is made.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE for a TPM without swtpm, and for more huge pages than are free
 */
export async function requireHostParts(
  { tpm, hugepages, memoryMib }: Pick<DomainWishes, "tpm" | "hugepages" | "memoryMib">,
  { environment, memoryInfoPath }: HostPlaces = {},
): Promise<void> {
  if (tpm) { for (const program of TPM_PROGRAMS) await requireProgram(program, environment); }
  if (!hugepages) return;
  const freeMib = await freeHugePagesMib(memoryInfoPath);
  if (freeMib >= memoryMib) return;
  throw new ShimError(
    "HYPERVISOR_UNAVAILABLE",
    `Cannot give ${memoryMib} MiB of huge pages: ${freeMib} MiB of them are free on this host`,
    { details: { remedy: "make room, as with: sysctl vm.nr_hugepages=N; or do without --hugepages" } },
  );
}

/** @throws {ShimError} HYPERVISOR_UNAVAILABLE when the host has no UEFI firmware for the architecture */
export function requireFirmware(choice: UefiFirmwareChoice): NonNullable<UefiFirmwareChoice["firmware"]> {
  if (choice.firmware) return choice.firmware;
  throw new ShimError(
    "HYPERVISOR_UNAVAILABLE",
    `Cannot boot by UEFI: the host has no firmware for it (${choice.reason})`,
    {
      details: {
        remedy: "install UEFI firmware for QEMU (Debian: ovmf for amd64, qemu-efi-aarch64 for arm64)",
      },
    },
  );
}
