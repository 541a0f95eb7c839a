import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { probeAcceleration, runProbeGuest } from "../../src/qemu/acceleration_probe.ts";
import { findProgram } from "../../src/qemu/program_path.ts";
import { readQemuVersion } from "../../src/qemu/qemu_version.ts";

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
