/**
 * @module qemu_command: a domain definition as the arguments of QEMU 7 or later, one file per part of the machine.
 *
 * May import the definition's types. Invariants: sandboxed, without defaults and without user configuration; every
 * block node names its driver and qcow2 its backing, so that QEMU probes nothing; text passes `option.ts`, or stands
 * alone as an argument that QEMU does not parse (kernel, initrd, append).
 */
import type { Architecture } from "../../image/platform.ts";
import type { DomainDefinition } from "../domain_definition.ts";
import { bootArguments } from "./boot.ts";
import { cdromArguments } from "./cdrom.ts";
import { consoleArguments } from "./console.ts";
import { diskArguments } from "./disk.ts";
import { guestAgentArguments } from "./guest_agent.ts";
import { machineArguments } from "./machine.ts";
import { monitorArguments } from "./monitor.ts";
import { networkArguments } from "./network.ts";
import { jsonOption } from "./option.ts";
import { tpmArguments } from "./tpm.ts";

const BINARIES: Readonly<Record<Architecture, string>> = {
  amd64: "qemu-system-x86_64",
  arm64: "qemu-system-aarch64",
};

/**
 * Gives the command that runs the machine in the foreground with its serial console on standard input and output.
 * It ends with status 0 when the guest powers off; a reboot reboots. Equal definitions give equal arguments.
 *
 * @returns the arguments; the first is the program's name
 * @see https://www.qemu.org/docs/master/system/security.html
 */
export function renderQemuCommand(definition: DomainDefinition): string[] {
  return [
    BINARIES[definition.architecture],
    "-nodefaults",
    "-no-user-config",
    ...["-display", "none"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...machineArguments(definition),
    ...bootArguments(definition),
    ...cdromArguments(definition),
    ...diskArguments(definition),
    ...networkArguments(definition),
    ...consoleArguments(),
    ...monitorArguments(definition.runtimeDirectory),
    ...guestAgentArguments(definition),
    ...tpmArguments(definition),
    ...jsonOption("-device", { driver: "virtio-balloon-pci" }),
    ...jsonOption("-object", { "qom-type": "rng-builtin", id: "entropy" }),
    ...jsonOption("-device", { driver: "virtio-rng-pci", rng: "entropy" }),
  ];
}
