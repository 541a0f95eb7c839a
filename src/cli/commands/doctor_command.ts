import type { Command } from "commander";
import { examineHost, type Finding } from "../../agent/doctor.ts";
import { ShimError } from "../../errors.ts";
import { beginInvocation, type Composition } from "../invocation.ts";
import { printable } from "../printable.ts";

export function registerDoctor(program: Command, composition: Composition): void {
  const command = program.command("doctor").description(
    "check what guests on this host need; every line that is not ok has its remedy",
  );
  command.action(async () => {
    const invocation = await beginInvocation(command, composition);
    const findings = await examineHost(await invocation.openContext(), { signal: invocation.signal });
    invocation.print(findings, formatFindings);
    const failed = findings.filter((finding) => finding.verdict === "fail").map((finding) => finding.check);
    if (failed.length > 0) {
      throw new ShimError(
        "HYPERVISOR_UNAVAILABLE",
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
