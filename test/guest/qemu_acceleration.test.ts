import { existsSync, readFileSync, watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { accelerationVerdict } from "../../src/agent/host_facts.ts";
import { probeAcceleration, runProbeGuest } from "../../src/qemu/acceleration_probe.ts";
import { findProgram } from "../../src/qemu/program_path.ts";
import { readQemuVersion } from "../../src/qemu/qemu_version.ts";
import { openAgent } from "../support/agent_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

const hasVirtualization = /^flags.*\b(?:vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
const lacksArm = await findProgram("qemu-system-aarch64") === null;
const hostArchitecture = process.arch === "arm64" ? "arm64" : "amd64";

describe("runProbeGuest", () => {
  it("sees the amd64 test guest end under emulation, so the same guest can prove KVM", async () => {
    expect(await runProbeGuest({ architecture: "amd64", acceleration: "tcg" })).toEqual({
      succeeded: true,
      evidence: expect.stringMatching(/^a test guest under tcg ended after \d+ ms$/),
    });
  });

  it.skipIf(lacksArm)("sees the arm64 test guest end under emulation", async () => {
    expect(await runProbeGuest({ architecture: "arm64", acceleration: "tcg" })).toEqual({
      succeeded: true,
      evidence: expect.stringMatching(/^a test guest under tcg ended after \d+ ms$/),
    });
  });
});

describe("probeAcceleration", () => {
  it.skipIf(hasVirtualization || !existsSync("/dev/kvm"))(
    "is not fooled by a /dev/kvm on a processor without virtualization",
    async () => {
      const verdict = await probeAcceleration({ architecture: hostArchitecture, hostArchitecture });
      expect(verdict).toEqual({
        acceleration: "tcg",
        evidence: expect.stringMatching(/^a test guest under kvm (?:failed|did not end)|does not open/),
      });
    },
  );
});

describe("accelerationVerdict", () => {
  it("tries once for all who ask at first, in whichever process, and keeps what it saw", async () => {
    const root = join(temporary(), "root");
    // Each with its own memory, as processes have.
    const contexts = await Promise.all(
      Array.from({ length: 4 }, () => openAgent(root, { hostArchitecture })),
    );
    const written: string[] = [];
    const watcher = watch(root, (kind, name) => written.push(`${kind} ${name}`));
    try {
      const asking = contexts.flatMap((context) =>
        Array.from({ length: 50 }, () => accelerationVerdict(context, { architecture: hostArchitecture }))
      );
      const verdicts = await Promise.all(asking);
      const kept = JSON.parse(await readFile(join(root, `acceleration-${hostArchitecture}.json`), "utf8"));
      // What was seen names how long it took, so two probes would have been told apart.
      for (const verdict of verdicts) expect(kept).toMatchObject(verdict);
      // Its temporary name and its own: once.
      await vi.waitFor(() => expect(written).toContain(`rename acceleration-${hostArchitecture}.json`));
      expect(written.filter((each) => each === `rename acceleration-${hostArchitecture}.json`)).toHaveLength(
        1,
      );
    } finally {
      watcher.close();
    }
  });
});

describe("readQemuVersion", () => {
  it("reads what the installed programs say of themselves, and null for what is not installed", async () => {
    const expected = {
      major: expect.any(Number),
      minor: expect.any(Number),
      text: expect.stringMatching(/^\d+\.\d+\.\d+/),
    };
    expect(await readQemuVersion("qemu-system-x86_64")).toEqual(expected);
    expect(await readQemuVersion("qemu-img")).toEqual(await readQemuVersion("qemu-system-x86_64"));
    expect(await readQemuVersion("qemu-system-pdp11")).toBe(null);
  });

  it("is QEMU_FAILED when another program answers", async () => {
    await expect(readQemuVersion("prlimit")).rejects.toMatchObject({ code: "QEMU_FAILED" });
  });
});
