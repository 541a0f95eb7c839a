import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { examineHugePages, examineTpm } from "../../../src/agent/doctor.ts";
import { requireHostParts, TPM_PROGRAMS } from "../../../src/agent/host_facts.ts";
import { rejectionOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const NOTHING = { tpm: false, hugepages: false, memoryMib: 512 };
const environment = () => ({ PATH: temporary(), LANG: "C" });

/** A host with these programs and no other. */
async function install(...programs: readonly string[]): Promise<void> {
  for (const program of programs) {
    await writeFile(join(temporary(), program), "#!/bin/sh\n");
    await chmod(join(temporary(), program), 0o755);
  }
}

/** What the kernel says of its memory: pages of 2 MiB. */
async function hugePages(free: number, reserved = 0): Promise<string> {
  const path = join(temporary(), "meminfo");
  const lines = [
    "MemTotal:       16000000 kB",
    `HugePages_Total:    ${free}`,
    `HugePages_Free:     ${free}`,
    `HugePages_Rsvd:        ${reserved}`,
    "Hugepagesize:       2048 kB",
  ];
  await writeFile(path, lines.join("\n") + "\n");
  return path;
}

describe("a TPM", () => {
  it.each(TPM_PROGRAMS)("is refused, and warned of, without %s", async (missing) => {
    await install(...TPM_PROGRAMS.filter((program) => program !== missing));
    const packageName = missing === "swtpm" ? "swtpm" : "swtpm-tools";
    const refusal = await rejectionOf(
      requireHostParts({ ...NOTHING, tpm: true }, { environment: environment() }),
    );
    expect(refusal).toMatchObject({
      code: "HYPERVISOR_UNAVAILABLE",
      details: { program: missing, remedy: `apt-get install ${packageName}` },
    });
    expect(await examineTpm(environment())).toEqual({
      verdict: "warn",
      found: `no guest can have a TPM: ${missing} is not installed`,
      remedy: `apt-get install ${packageName}`,
    });
    // Who asks for none needs none.
    await requireHostParts(NOTHING, { environment: environment() });
  });

  it("is had with both", async () => {
    await install(...TPM_PROGRAMS);
    await requireHostParts({ ...NOTHING, tpm: true }, { environment: environment() });
    expect(await examineTpm(environment())).toEqual({ verdict: "ok", found: "guests can have a TPM 2.0" });
  });
});

describe("huge pages", () => {
  const wish = { ...NOTHING, hugepages: true };

  it.each([
    ["none", 0, 0, 0],
    ["too few", 255, 0, 510],
    ["enough that others have reserved", 300, 45, 510],
  ])("are refused where there are %s free", async (_what, free, reserved, freeMib) => {
    const memoryInfoPath = await hugePages(free, reserved);
    expect(await rejectionOf(requireHostParts(wish, { memoryInfoPath }))).toEqual({
      code: "HYPERVISOR_UNAVAILABLE",
      message: `Cannot give 512 MiB of huge pages: ${freeMib} MiB of them are free on this host`,
      details: { remedy: "make room, as with: sysctl vm.nr_hugepages=N; or do without --hugepages" },
    });
    await requireHostParts({ ...wish, hugepages: false }, { memoryInfoPath });
  });

  it("are had where as many are free, which doctor says", async () => {
    const memoryInfoPath = await hugePages(256);
    await requireHostParts(wish, { memoryInfoPath });
    expect(await examineHugePages(memoryInfoPath)).toEqual({ verdict: "ok", found: "512 MiB free" });
  });

  it("are warned of where there are none", async () => {
    expect(await examineHugePages(await hugePages(0))).toMatchObject({
      verdict: "warn",
      found: "none are free: guests that ask for them are refused",
      remedy: expect.stringContaining("sysctl vm.nr_hugepages"),
    });
  });
});
