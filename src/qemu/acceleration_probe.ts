import { access, mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { constants } from "node:fs";
import { join } from "node:path";
import type { Acceleration } from "../hypervisor/domain_definition.ts";
import type { Architecture } from "../image/platform.ts";
import { ShimError } from "../errors.ts";
import { errnoOf } from "../host/io_error.ts";
import { superviseProgram } from "./host_program.ts";
import { probeFirmware, X86_EXIT_PORT } from "./probe_firmware.ts";
import { type ProgramEnvironment, requireProgram, STANDARD_ENVIRONMENT } from "./program_path.ts";

const BINARIES: Readonly<Record<Architecture, string>> = {
  amd64: "qemu-system-x86_64",
  arm64: "qemu-system-aarch64",
};
const KVM_DEVICE = "/dev/kvm";
/** The guest takes 0.1 s where acceleration works, start of QEMU included; 3 s leaves room for a busy host. */
const GUEST_TIMEOUT_MS = 3_000;
const LIMITS = { addressSpaceBytes: 64 * 1024 ** 3, cpuSeconds: 10, fileSizeBytes: 1024 * 1024 };

export type ProbeOptions = {
  /** Of the guest. */
  readonly architecture: Architecture;
  readonly hostArchitecture: Architecture;
  /** Name or absolute path of QEMU; by default the usual one for the architecture. */
  readonly binary?: string;
  readonly kvmDevice?: string;
  readonly environment?: ProgramEnvironment;
  readonly signal?: AbortSignal | undefined;
};

/** `evidence` says in one sentence what was seen: for `doctor` and the log. */
export type AccelerationVerdict = { readonly acceleration: Acceleration; readonly evidence: string };

/**
 * Decides between KVM and emulation by what works, not by what is there: KVM only when its device opens for reading and
 * writing *and* a tiny real guest ran under it to its end in time. A host's verdict holds for as long as
 * {@link probeKey} stays the same; asking costs 0.1 s where KVM works, 3 s where it pretends.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when QEMU for the architecture is not installed; CANCELLED
 */
export async function probeAcceleration(options: ProbeOptions): Promise<AccelerationVerdict> {
  const { architecture, hostArchitecture, kvmDevice = KVM_DEVICE } = options;
  await requireProgram(options.binary ?? BINARIES[architecture], options.environment);
  if (architecture !== hostArchitecture) {
    return {
      acceleration: "tcg",
      evidence: `a guest of ${architecture} on a host of ${hostArchitecture} has to be emulated`,
    };
  }
  const errno = await whyNotOpen(kvmDevice);
  if (errno !== null) {
    return {
      acceleration: "tcg",
      evidence: `"${kvmDevice}" does not open for reading and writing: ${errno}`,
    };
  }
  const { succeeded, evidence } = await runProbeGuest({ ...options, acceleration: "kvm" });
  return { acceleration: succeeded ? "kvm" : "tcg", evidence };
}

async function whyNotOpen(path: string): Promise<string | null> {
  try {
    await (await open(path, "r+")).close();
    return null;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    return errno;
  }
}

export type ProbeGuestOptions = Pick<ProbeOptions, "architecture" | "binary" | "environment" | "signal"> & {
  readonly acceleration: Acceleration;
  readonly timeoutMs?: number;
};

/**
 * Runs the tiny guest under one accelerator. That it fails is an answer, not an error.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when QEMU is not installed; CANCELLED
 */
export async function runProbeGuest(
  options: ProbeGuestOptions,
): Promise<{ succeeded: boolean; evidence: string }> {
  const {
    architecture,
    acceleration,
    binary = BINARIES[architecture],
    timeoutMs = GUEST_TIMEOUT_MS,
    signal,
  } = options;
  const { environment = STANDARD_ENVIRONMENT } = options;
  const { bytes, expectedExitCode } = probeFirmware(architecture);
  const folder = await mkdtemp(join(environment.TMPDIR ?? "/tmp", "bootshim-probe-"));
  try {
    const firmwarePath = join(folder, "firmware.bin");
    await writeFile(firmwarePath, bytes);
    const startedMs = performance.now();
    const exit = await superviseProgram(probeCommand({ binary, architecture, acceleration, firmwarePath }), {
      onStdout: () => {},
      timeoutMs,
      signal,
      // Nothing in it is worth a clean end.
      graceMs: 200,
      limits: LIMITS,
      environment,
    });
    const tookMs = Math.round(performance.now() - startedMs);
    if (exit.endedBy === "abort") {
      throw new ShimError("CANCELLED", "Cannot probe for acceleration: the request was cancelled");
    }
    const guest = `a test guest under ${acceleration}`;
    if (exit.endedBy === "timeout") {
      return { succeeded: false, evidence: `${guest} did not end within ${timeoutMs} ms` };
    }
    if (exit.exitCode === expectedExitCode) {
      return { succeeded: true, evidence: `${guest} ended after ${tookMs} ms` };
    }
    const how = exit.killedBy ?? `exit code ${exit.exitCode}`;
    return { succeeded: false, evidence: `${guest} failed with ${how}: ${JSON.stringify(exit.stderrTail)}` };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type ProbeCommand = {
  readonly binary: string;
  readonly architecture: Architecture;
  readonly acceleration: Acceleration;
  readonly firmwarePath: string;
};

/** Machine and processor as `hypervisor/qemu_command` has them: a probe of another machine would prove little. */
function probeCommand({ binary, architecture, acceleration, firmwarePath }: ProbeCommand): string[] {
  const machine = architecture === "amd64"
    ? "q35"
    : acceleration === "kvm"
    ? "virt,gic-version=host"
    : "virt,gic-version=3";
  return [
    binary,
    "-nodefaults",
    "-no-user-config",
    ...["-display", "none"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-machine", machine],
    ...["-accel", acceleration],
    ...["-cpu", acceleration === "kvm" ? "host" : "max"],
    ...["-m", "16M"],
    ...["-bios", firmwarePath],
    ...(architecture === "amd64"
      ? ["-device", `isa-debug-exit,iobase=0x${X86_EXIT_PORT.toString(16)},iosize=1`]
      : []),
  ];
}

/**
 * What a verdict depends on, as one line: this boot of the host, this QEMU, whether we may open KVM. Whoever keeps
 * verdicts keeps them under this key.
 *
 * @throws {ShimError} HYPERVISOR_UNAVAILABLE when QEMU for the architecture is not installed
 */
export async function probeKey(options: Omit<ProbeOptions, "signal">): Promise<string> {
  const { architecture, hostArchitecture, kvmDevice = KVM_DEVICE } = options;
  const binary = await requireProgram(options.binary ?? BINARIES[architecture], options.environment);
  const { mtimeMs } = await stat(binary);
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  // Somebody may have joined the kvm group since.
  const mayOpen = await access(kvmDevice, constants.R_OK | constants.W_OK).then(() => true, () => false);
  return [architecture, hostArchitecture, bootId, binary, mtimeMs, kvmDevice, mayOpen].join(" ");
}
