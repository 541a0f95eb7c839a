import { chmod, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { probeAcceleration, probeKey, runProbeGuest } from "../../../src/qemu/acceleration_probe.ts";
import { STANDARD_ENVIRONMENT } from "../../../src/qemu/program_path.ts";

/** Stands in for QEMU here; test/guest/qemu_acceleration.test.ts asks the real one. */
let binary: string;
let folder: string;
let kvmDevice: string;
let environment: typeof STANDARD_ENVIRONMENT;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-probe-test-"));
  binary = join(folder, "qemu");
  kvmDevice = join(folder, "kvm");
  environment = { ...STANDARD_ENVIRONMENT, TMPDIR: folder };
  await writeFile(kvmDevice, "");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function pretend(script: string) {
  await writeFile(binary, `#!/bin/sh\n${script}\n`);
  await chmod(binary, 0o755);
}
const probe = (change: { hostArchitecture?: "amd64" | "arm64"; kvmDevice?: string } = {}) =>
  probeAcceleration({
    architecture: "amd64",
    hostArchitecture: "amd64",
    binary,
    kvmDevice,
    environment,
    ...change,
  });

describe("probeAcceleration", () => {
  it("is kvm when the guest under KVM ends with the exit code it was built to give", async () => {
    // -accel kvm must be among the arguments: 85 is what the guest's write of 0x2a becomes.
    await pretend('case "$*" in *"-accel kvm -cpu host"*) exit 85;; esac; exit 1');
    expect(await probe()).toEqual({
      acceleration: "kvm",
      evidence: expect.stringMatching(/^a test guest under kvm ended after \d+ ms$/),
    });
    expect((await readdir(folder)).sort()).toEqual(["kvm", "qemu"]);
  });

  it("is tcg when the guest fails, with QEMU's words as evidence", async () => {
    await pretend("echo 'failed to set MSR' >&2; exit 1");
    expect(await probe()).toEqual({
      acceleration: "tcg",
      evidence: 'a test guest under kvm failed with exit code 1: "failed to set MSR"',
    });
  });

  it("is tcg when the guest does not end in time", async () => {
    await pretend("exec sleep 60");
    const verdict = await runProbeGuest({
      architecture: "amd64",
      acceleration: "kvm",
      binary,
      environment,
      timeoutMs: 50,
    });
    expect(verdict).toEqual({
      succeeded: false,
      evidence: "a test guest under kvm did not end within 50 ms",
    });
    expect((await readdir(folder)).sort()).toEqual(["kvm", "qemu"]);
  });

  it("is tcg without a try when the device is missing, or the guest is of another architecture", async () => {
    await pretend("exit 85");
    const missing = join(folder, "none");
    expect([await probe({ kvmDevice: missing }), await probe({ hostArchitecture: "arm64" })]).toEqual([
      { acceleration: "tcg", evidence: `"${missing}" does not open for reading and writing: ENOENT` },
      { acceleration: "tcg", evidence: "a guest of amd64 on a host of arm64 has to be emulated" },
    ]);
  });

  it("is HYPERVISOR_UNAVAILABLE without QEMU, and CANCELLED when asked to stop", async () => {
    await expect(probe()).rejects.toMatchObject({ code: "HYPERVISOR_UNAVAILABLE" });
    await pretend("exit 85");
    const signal = AbortSignal.abort();
    await expect(
      probeAcceleration({
        architecture: "amd64",
        hostArchitecture: "amd64",
        binary,
        kvmDevice,
        environment,
        signal,
      }),
    ).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

describe("probeKey", () => {
  it("stays the same until QEMU or the right to open KVM changes", async () => {
    await pretend("exit 85");
    const key = () => probeKey({ architecture: "amd64", hostArchitecture: "amd64", binary, kvmDevice });
    const first = await key();
    expect(await key()).toBe(first);
    await utimes(binary, 1, 1);
    const second = await key();
    await rm(kvmDevice);
    const third = await key();
    expect(new Set([first, second, third]).size).toBe(3);
  });
});
