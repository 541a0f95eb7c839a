import type { DomainDefinition } from "../domain_definition.ts";
import { optionValue } from "./option.ts";
import { NVRAM_NODE, UEFI_LOADER_NODE } from "./boot.ts";

export function machineArguments(definition: DomainDefinition): string[] {
  return [
    ...["-name", `guest=${optionValue(definition.name)}`],
    ...["-uuid", definition.uuid],
    ...["-machine", machineProperties(definition).join(",")],
    ...["-cpu", cpuModel(definition)],
    ...["-smp", String(definition.cpus)],
    ...["-m", `${definition.memoryMib}M`],
    ...["-rtc", "base=utc"],
  ];
}

function cpuModel({ architecture, acceleration }: DomainDefinition): string {
  if (acceleration === "kvm") return "host";
  // Emulating arm64's own pointer authentication doubles the time a kernel takes; QEMU 10 has made this its default.
  return architecture === "arm64" ? "max,pauth-impdef=on" : "max";
}

function machineProperties({ architecture, acceleration, boot }: DomainDefinition): string[] {
  return [
    architecture === "amd64" ? "q35" : "virt",
    `accel=${acceleration}`,
    // As in the domain XML: version 2 ends at 8 CPUs, and a kernel loaded directly reads the device tree.
    ...(architecture === "arm64" ? [`gic-version=${acceleration === "kvm" ? "host" : "3"}`] : []),
    ...(architecture === "arm64" && boot.firmware.kind === "none" ? ["acpi=off"] : []),
    ...(boot.firmware.kind === "uefi" ? [`pflash0=${UEFI_LOADER_NODE}`, `pflash1=${NVRAM_NODE}`] : []),
  ];
}
