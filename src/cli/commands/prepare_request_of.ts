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
  return {
    ...{ id, diskFormat, clone, cpus, acceleration, tpm, secureBoot, hugepages },
    memoryBytes: machine.memoryMib * 2 ** 20,
    network: networkWord(machine.network),
    dataDisks: [...machine.dataDisks],
    ...(uuid === null ? {} : { uuid }),
    ...(diskSizeBytes === null ? {} : { diskSizeBytes }),
    ...fileRequestOf("ignition", ignition),
    ...fileRequestOf("userData", userData),
    ...fileRequestOf("metadata", metadata),
  };
}

/** As text, or as Base64 when it is none, or when text would be longer for all that JSON escapes. */
function fileRequestOf(
  name: "ignition" | "userData" | "metadata",
  bytes: Uint8Array | null,
): NonNullable<Partial<PrepareRequest["machine"]>> {
  if (bytes === null) return {};
  const encoded = Buffer.from(bytes).toString("base64");
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    if (JSON.stringify(text).length <= encoded.length + 2) return { [name]: text };
  } catch {
    // No UTF-8: sent as it is.
  }
  return { [`${name}Base64`]: encoded };
}

function networkWord(network: MachineWishes["network"]): string {
  if (network.kind === "bridge") return `bridge:${network.name}`;
  return network.kind === "network" ? network.name : network.kind;
}
