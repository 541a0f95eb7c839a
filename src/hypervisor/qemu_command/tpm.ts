import type { DomainDefinition } from "../domain_definition.ts";
import { jsonOption, optionValue } from "./option.ts";

/** A TPM 2.0 whose swtpm listens already: `swtpm socket --tpm2 --ctrl type=unixio,path=RUNTIME/tpm.sock …`. */
export function tpmArguments({ tpm, architecture, runtimeDirectory }: DomainDefinition): string[] {
  if (!tpm || runtimeDirectory === null) return [];
  const driver = architecture === "amd64" ? "tpm-crb" : "tpm-tis-device";
  return [
    ...["-chardev", `socket,id=tpm,path=${optionValue(`${runtimeDirectory}/tpm.sock`)}`],
    ...["-tpmdev", "emulator,id=tpm0,chardev=tpm"],
    ...jsonOption("-device", { driver, tpmdev: "tpm0" }),
  ];
}
