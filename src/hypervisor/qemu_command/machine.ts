import type { DomainDefinition } from "../domain_definition.ts";
import { NVRAM_NODE, UEFI_LOADER_NODE } from "./boot.ts";
import { jsonOption, optionValue } from "./option.ts";

const MEMORY_BACKEND = "memory";

export function machineArguments(definition: DomainDefinition): string[] {
  return [
    ...["-name", `guest=${optionValue(definition.name)}`],
    ...["-uuid", definition.uuid],
    ...["-smbios", `type=1,serial=${optionValue(definition.name)}`],
    ...["-machine", machineProperties(definition).join(",")],
    ...["-cpu", cpuModel(definition)],
    ...["-smp", String(definition.cpus)],
    ...["-m", `${definition.memoryMib}M`],
    ...memoryBackendArguments(definition),
    ...["-rtc", "base=utc"],
  ];
}

function memoryBackendArguments({ hugepages, memoryMib }: DomainDefinition): string[] {
  if (!hugepages) return [];
  return jsonOption("-object", {
    "qom-type": "memory-backend-memfd",
    id: MEMORY_BACKEND,
    size: memoryMib * 2 ** 20,
    hugetlb: true,
    // Taken at the start, so that a pool that ran dry is told then and not by a signal to the running guest.
    prealloc: true,
  });
}

function cpuModel({ architecture, acceleration }: DomainDefinition): string {
  if (acceleration === "kvm") return "host";
  // Emulating arm64's own pointer authentication doubles the time a kernel takes; QEMU 10 has made this its default.
  return architecture === "arm64" ? "max,pauth-impdef=on" : "max";
}

function machineProperties({ architecture, acceleration, boot, hugepages }: DomainDefinition): string[] {
  const { firmware } = boot;
  return [
    architecture === "amd64" ? "q35" : "virt",
    `accel=${acceleration}`,
    // As in the domain XML: version 2 ends at 8 CPUs, and a kernel loaded directly reads the device tree.
    ...(architecture === "arm64" ? [`gic-version=${acceleration === "kvm" ? "host" : "3"}`] : []),
    ...(architecture === "arm64" && firmware.kind === "none" ? ["acpi=off"] : []),
    ...(hugepages ? [`memory-backend=${MEMORY_BACKEND}`] : []),
    ...(firmware.kind === "uefi" && firmware.secureBoot ? ["smm=on"] : []),
    ...(firmware.kind === "uefi" ? [`pflash0=${UEFI_LOADER_NODE}`, `pflash1=${NVRAM_NODE}`] : []),
  ];
}
