import { join } from "node:path";
import { nodeFileSystem } from "../host/file_system.ts";
import { qemuGroupId } from "../host/qemu_group.ts";
import { toShimError } from "../errors.ts";
import type { Architecture } from "../image/platform.ts";
import type { DomainControl } from "../libvirt/domain_control.ts";
import { type ProgramEnvironment, requireProgram } from "../qemu/program_path.ts";
import { readQemuVersion } from "../qemu/qemu_version.ts";
import type { AgentContext } from "./agent_context.ts";
import { withLibvirt } from "./domains.ts";
import { accelerationVerdict, chooseFirmware, freeHugePagesMib, TPM_PROGRAMS } from "./host_facts.ts";

/** One line of the doctor's report. `remedy` is there unless the verdict is ok. */
export type Finding = {
  readonly check: string;
  readonly verdict: "ok" | "warn" | "fail";
  readonly found: string;
  readonly remedy?: string;
};

const BINARIES: Readonly<Record<Architecture, string>> = {
  amd64: "qemu-system-x86_64",
  arm64: "qemu-system-aarch64",
};
const PACKAGES: Readonly<Record<Architecture, string>> = {
  amd64: "qemu-system-x86",
  arm64: "qemu-system-arm",
};
/** Less than this holds no operating-system image worth the name. */
const LOW_SPACE_BYTES = 10 * 2 ** 30;

/** Looks at everything a guest on this host needs. Changes nothing but the kept verdict on KVM. */
export async function examineHost(
  context: AgentContext,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<Finding[]> {
  return await Promise.all([
    finding("root", () => Promise.resolve(ok(`"${context.rootDirectory}" is ours alone`))),
    finding("space", () => examineSpace(context)),
    finding("reflink", () => examineReflink(context)),
    finding(
      "qemu",
      () => examineProgram(BINARIES[context.hostArchitecture], PACKAGES[context.hostArchitecture]),
    ),
    finding("qemu-img", () => examineProgram("qemu-img", "qemu-utils")),
    finding("kvm", () => examineAcceleration(context, options)),
    finding("firmware", () => examineFirmware(context)),
    finding("swtpm", () => examineTpm()),
    finding("huge pages", () => examineHugePages()),
    finding("libvirt", () => examineLibvirt(context, options)),
    finding("qemu group", () => examineGroup(context)),
  ]);
}

export type Verdict = Omit<Finding, "check">;

export function ok(found: string): Verdict {
  return { verdict: "ok", found };
}

/** Either is good: what differs is how a machine's disk is made. */
async function examineReflink({ content, machines }: AgentContext): Promise<Verdict> {
  const isShared = await machines.canReflink(join(content.layoutDirectory, "oci-layout"));
  return ok(
    isShared
      ? "the file system shares blocks: a machine's disk is a reflink of the image's"
      : "the file system shares no blocks: a machine's disk is an overlay above the image's",
  );
}

/** A check that itself fails is a finding like any other. */
export async function finding(check: string, examine: () => Promise<Verdict>): Promise<Finding> {
  try {
    return { check, ...await examine() };
  } catch (error) {
    const { code, message, details } = toShimError(error);
    if (code === "CANCELLED") throw error;
    return { check, verdict: "fail", found: message, remedy: details.remedy ?? "see the message" };
  }
}

async function examineSpace(context: AgentContext): Promise<Verdict> {
  const bytes = await nodeFileSystem.availableBytes(context.rootDirectory);
  const found = `${Math.floor(bytes / 2 ** 30)} GiB free under "${context.rootDirectory}"`;
  if (bytes >= LOW_SPACE_BYTES) return ok(found);
  return { verdict: "warn", found, remedy: "free some, or choose another place with --root" };
}

async function examineProgram(binary: string, packageName: string): Promise<Verdict> {
  const version = await readQemuVersion(binary);
  if (version) return ok(`${binary} ${version.text}`);
  return { verdict: "fail", found: `${binary} is not installed`, remedy: `apt-get install ${packageName}` };
}

async function examineAcceleration(
  context: AgentContext,
  options: { signal?: AbortSignal | undefined },
): Promise<Verdict> {
  const { acceleration, evidence } = await accelerationVerdict(context, {
    architecture: context.hostArchitecture,
    signal: options.signal,
  });
  if (acceleration === "kvm") return ok(evidence);
  return {
    verdict: "warn",
    found: `guests are emulated: ${evidence}`,
    remedy: "enable virtualization in the firmware or the outer hypervisor, and load the kvm module",
  };
}

async function examineFirmware(context: AgentContext): Promise<Verdict> {
  const choice = await chooseFirmware(context, context.hostArchitecture);
  if (choice.firmware) return ok(`UEFI by "${choice.firmware.loaderPath}"`);
  return {
    verdict: "warn",
    found: `UEFI disks cannot boot: ${choice.reason}`,
    remedy: "apt-get install ovmf (amd64) or qemu-efi-aarch64 (arm64)",
  };
}

/** Asked for by `--tpm` only, so its absence is no failure. */
export async function examineTpm(environment?: ProgramEnvironment): Promise<Verdict> {
  for (const program of TPM_PROGRAMS) {
    try {
      await requireProgram(program, environment);
    } catch (error) {
      const remedy = toShimError(error).details.remedy ?? `install "${program}"`;
      return { verdict: "warn", found: `no guest can have a TPM: ${program} is not installed`, remedy };
    }
  }
  return ok("guests can have a TPM 2.0");
}

/** Asked for by `--hugepages` only. */
export async function examineHugePages(memoryInfoPath?: string): Promise<Verdict> {
  const freeMib = await freeHugePagesMib(memoryInfoPath);
  if (freeMib > 0) return ok(`${freeMib} MiB free`);
  return {
    verdict: "warn",
    found: "none are free: guests that ask for them are refused",
    remedy: "if you want them: sysctl vm.nr_hugepages=N, before the host's memory is in pieces",
  };
}

async function examineLibvirt(
  context: AgentContext,
  { signal }: { signal?: AbortSignal | undefined },
): Promise<Verdict> {
  return await withLibvirt(context, async (connection) => {
    const { libraryVersion, hypervisorVersion } = await connection.version();
    const found = `libvirt ${libraryVersion ?? "of unknown version"} at ${context.libvirtUri}, hypervisor ${
      hypervisorVersion ?? "of unknown version"
    }`;
    return await examineGuests(connection, { context, found });
  }, { signal });
}

const LIBVIRT_ARCHITECTURES: Readonly<Record<Architecture, string>> = { amd64: "x86_64", arm64: "aarch64" };

/** What libvirt itself says that it can run here: it probes for itself, and defines nothing that it does not know. */
async function examineGuests(
  connection: DomainControl,
  { context, found }: { readonly context: AgentContext; readonly found: string },
): Promise<Verdict> {
  // Loaded here only: no other command reads XML
  const { parseCapabilities, parseDomainCapabilities } = await import("../libvirt/capabilities.ts");
  const architecture = LIBVIRT_ARCHITECTURES[context.hostArchitecture];
  const guests = parseCapabilities(await connection.capabilitiesXml())
    .find((candidate) => candidate.architecture === architecture);
  const types = guests?.virtualizationTypes ?? [];
  const best = types.includes("kvm") ? "kvm" : types.includes("qemu") ? "qemu" : undefined;
  if (guests === undefined || best === undefined) {
    return {
      verdict: "fail",
      found: `${found}; it runs no ${architecture} guests`,
      remedy: `apt-get install ${PACKAGES[context.hostArchitecture]}, then restart libvirtd`,
    };
  }
  const { firmware } = parseDomainCapabilities(await connection.domainCapabilitiesXml(architecture, best));
  return ok(
    `${found}; ${architecture} guests by ${
      types.join(" and ")
    }, ${guests.machineTypes.length} machine types, ${
      firmware.includes("efi") ? "UEFI" : "no UEFI of its own"
    }`,
  );
}

async function examineGroup(context: AgentContext): Promise<Verdict> {
  if (!context.isRoot) return ok("not root: QEMU runs as the user, and reads what the user reads");
  const groupId = await qemuGroupId();
  if (groupId !== null) return ok(`QEMU reads the cache through group ${groupId}`);
  return {
    verdict: "warn",
    found: "no QEMU user on this host: libvirt's guests could not read the cache",
    remedy: "apt-get install libvirt-daemon-system",
  };
}
