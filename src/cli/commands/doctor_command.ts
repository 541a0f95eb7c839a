import type { Command } from "commander";
import { examineHost, type Finding } from "../../agent/doctor.ts";
import { examineRegistry } from "../../agent/examine_registry.ts";
import { ShimError } from "../../errors.ts";
import { addExamples } from "../examples.ts";
import { beginInvocation, type Composition } from "../invocation.ts";
import { printable } from "../printable.ts";
import { readRegistryReference } from "./registry_commands.ts";

export function registerDoctor(program: Command, composition: Composition): void {
  const command = program.command("doctor")
    .argument("[ref]", "HOST/REPOSITORY:TAG: also check the way to this image")
    .description("check what guests on this host need; every line that is not ok has its remedy");
  addExamples(command, ["doctor registry.example.org/os/linux:1"]);
  command.action(async (text: string | undefined) => {
    const invocation = await beginInvocation(command, composition);
    const { signal } = invocation;
    const reference = text === undefined ? undefined : readRegistryReference(text);
    const context = await invocation.openContext();
    const findings = [
      ...await examineHost(context, { signal }),
      ...reference ? await examineRegistry(context, reference, { signal }) : [],
    ];
    invocation.print(findings, formatFindings);
    const failed = findings.filter((finding) => finding.verdict === "fail").map((finding) => finding.check);
    if (failed.length > 0) {
      throw new ShimError(
        failed.every((check) => check === "registry") ? "REGISTRY_UNAVAILABLE" : "HYPERVISOR_UNAVAILABLE",
        `Cannot vouch for this host: ${failed.join(", ")} failed, must be ok`,
        { details: { failed } },
      );
    }
  });
}

function formatFindings(findings: readonly Finding[]): string {
  return findings.map(({ check, verdict, found, remedy }) => {
    return `${verdict.padEnd(4)}  ${check.padEnd(10)}  ${printable(found)}\n${
      remedy ? `${" ".repeat(18)}${printable(remedy)}\n` : ""
    }`;
  }).join("");
}
