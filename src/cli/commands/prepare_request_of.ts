import type { z } from "zod";
import type { MachineWishes } from "../../agent/prepare_machine.ts";
import type { PrepareRequest } from "../../api/client.ts";
import type { bootOptions, imageOptions } from "./wish_options.ts";

/** The options of `prepare`, as a request to the service. What was left out is left to the service. */
export function prepareRequestOf(
  reference: string,
  options: z.infer<typeof imageOptions> & z.infer<typeof bootOptions>,
  machine: MachineWishes | null,
): PrepareRequest {
  const { arch, variant, pull, boot, firmware, cmdline, append } = options;
  return {
    reference,
    ...(arch === undefined ? {} : { architecture: arch }),
    ...{ variant, pull, boot, firmware, append },
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(machine === null ? {} : { machine: machineRequestOf(machine) }),
  };
}

function machineRequestOf(machine: MachineWishes): NonNullable<PrepareRequest["machine"]> {
  const { id, uuid, diskSizeBytes, diskFormat, clone, cpus, acceleration, tpm, secureBoot, hugepages } =
    machine;
  const { ignition, userData, metadata } = machine.provisioning;
  const text = (bytes: Uint8Array) =>
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  return {
    ...{ id, diskFormat, clone, cpus, acceleration, tpm, secureBoot, hugepages },
    memoryBytes: machine.memoryMib * 2 ** 20,
    network: networkWord(machine.network),
    dataDisks: [...machine.dataDisks],
    ...(uuid === null ? {} : { uuid }),
    ...(diskSizeBytes === null ? {} : { diskSizeBytes }),
    ...(ignition === null ? {} : { ignition: text(ignition) }),
    ...(userData === null ? {} : { userData: text(userData) }),
    ...(metadata === null ? {} : { metadata: text(metadata) }),
  };
}

function networkWord(network: MachineWishes["network"]): string {
  if (network.kind === "bridge") return `bridge:${network.name}`;
  return network.kind === "network" ? network.name : network.kind;
}
