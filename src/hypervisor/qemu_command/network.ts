import type { DomainDefinition } from "../domain_definition.ts";
import { jsonOption, optionValue } from "./option.ts";

export function networkArguments({ network }: DomainDefinition): string[] {
  if (network.kind === "none") return ["-nic", "none"];
  // The empty romfile: nothing here boots from the network, and the ROM's file is a package of its own.
  const device = {
    driver: "virtio-net-pci",
    netdev: "network0",
    romfile: "",
    mac: network.macAddress,
  };
  if (network.kind === "user") return ["-netdev", "user,id=network0", ...jsonOption("-device", device)];
  return [
    // A tap that exists: the sandbox kills QEMU when it starts a bridge helper or a script.
    ...["-netdev", `tap,id=network0,ifname=${optionValue(network.tapName)},script=no,downscript=no`],
    ...jsonOption("-device", device),
  ];
}
