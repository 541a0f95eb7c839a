import type { DomainDefinition } from "../domain_definition.ts";
import { jsonOption, optionValue } from "./option.ts";

/** The channel that qemu-guest-agent looks for; the host's end listens in the runtime directory. */
export function guestAgentArguments({ runtimeDirectory }: DomainDefinition): string[] {
  if (runtimeDirectory === null) return [];
  const path = optionValue(`${runtimeDirectory}/agent.sock`);
  return [
    ...["-chardev", `socket,id=agent,path=${path},server=on,wait=off`],
    ...jsonOption("-device", { driver: "virtio-serial-pci", id: "channels" }),
    ...jsonOption("-device", {
      driver: "virtserialport",
      bus: "channels.0",
      chardev: "agent",
      name: "org.qemu.guest_agent.0",
    }),
  ];
}
