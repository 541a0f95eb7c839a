import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { PreparedBoot } from "../../../src/boot/prepared_boot.ts";
import { ShimError } from "../../../src/errors.ts";
import { defineDomain } from "../../../src/hypervisor/define_domain.ts";
import type { DomainDisk } from "../../../src/hypervisor/domain_definition.ts";

const boot: PreparedBoot = {
  architecture: "amd64",
  variant: "virtualization",
  mode: "kernel",
  firmware: "none",
  kernel: "/blobs/kernel",
  initramfs: "/blobs/initramfs",
  uki: null,
  iso: null,
  cmdline: "console=ttyS0",
  reason: "",
  modes: [{ mode: "uki", possible: false, why: "no such layer" }],
  disks: [],
};
const disk: DomainDisk = {
  path: "/m/disk.qcow2",
  format: "qcow2",
  readOnly: false,
  serial: "machineboot",
  backing: { path: "/blobs/rootfs", format: "raw" },
};
const machine = {
  id: "vm-1",
  uuid: "0d5c9b0e-6e1f-4a8e-9d2c-3b7f1a2e4c55",
  disks: [disk],
  nvramPath: "/m/nvram.fd",
  consoleLogPath: "/m/console.log",
  ignitionPath: "/m/ignition.json",
  runtimeDirectory: "/m",
};
const wishes = {
  memoryMib: 512,
  hugepages: true,
  cpus: 2,
  tpm: true,
  secureBoot: false,
  network: { kind: "none" },
} as const;
const host = {
  acceleration: "tcg",
  uefiFirmware: {
    firmware: {
      loaderPath: "/f/code",
      loaderFormat: "raw",
      nvramTemplatePath: "/f/vars",
      nvramTemplateFormat: "qcow2",
      secureBoot: false,
    },
  },
  keepOwnership: true,
} as const;

const uefi = {
  kind: "uefi",
  loaderPath: "/f/code",
  loaderFormat: "raw",
  nvramPath: "/m/nvram.fd",
  nvramFormat: "qcow2",
  secureBoot: false,
} as const;

function failureOf(
  input: Parameters<typeof defineDomain>[0],
): { code: string; message: string; details: unknown } {
  try {
    defineDomain(input);
  } catch (error) {
    if (error instanceof ShimError) {
      return { code: error.code, message: error.message, details: error.details };
    }
  }
  throw new Error("the definition was accepted");
}

describe("defineDomain", () => {
  it("joins image, machine, wishes and host for a kernel boot", () => {
    expect(defineDomain({ boot, machine, wishes, host })).toEqual({
      name: "vm-1",
      uuid: machine.uuid,
      architecture: "amd64",
      acceleration: "tcg",
      memoryMib: 512,
      hugepages: true,
      cpus: 2,
      tpm: true,
      boot: {
        mode: "kernel",
        firmware: { kind: "none" },
        kernelPath: "/blobs/kernel",
        initramfsPath: "/blobs/initramfs",
        cmdline: "console=ttyS0",
      },
      disks: [disk],
      ignitionPath: "/m/ignition.json",
      network: { kind: "none" },
      consoleLogPath: "/m/console.log",
      runtimeDirectory: "/m",
      keepOwnership: true,
    });
  });

  it("gives a UEFI boot the host's loader and the machine's NVRAM in the template's format", () => {
    const defined = defineDomain({
      boot: { ...boot, mode: "disk", firmware: "uefi" },
      machine,
      wishes,
      host,
    });
    expect(defined.boot).toEqual({ mode: "disk", firmware: uefi });
  });

  it("gives a kernel that is an EFI program to UEFI, with its initramfs and command line", () => {
    const defined = defineDomain({ boot: { ...boot, firmware: "uefi" }, machine, wishes, host });
    expect(defined.boot).toEqual({
      mode: "kernel",
      firmware: uefi,
      kernelPath: "/blobs/kernel",
      initramfsPath: "/blobs/initramfs",
      cmdline: "console=ttyS0",
    });
  });

  it("gives a unified kernel image to UEFI as the kernel, with what it holds and nothing else", () => {
    const defined = defineDomain({
      boot: { ...boot, mode: "uki", firmware: "uefi", uki: "/blobs/uki" },
      machine,
      wishes,
      host,
    });
    expect(defined.boot).toEqual({
      mode: "kernel",
      firmware: uefi,
      kernelPath: "/blobs/uki",
      initramfsPath: null,
      cmdline: "",
    });
  });

  it("gives an ISO boot its CD under either firmware, and no kernel", () => {
    const boots = (["bios", "uefi"] as const).map((firmware) =>
      defineDomain({ boot: { ...boot, mode: "iso", firmware, iso: "/blobs/iso" }, machine, wishes, host })
        .boot
    );
    expect(boots).toEqual([
      { mode: "iso", firmware: { kind: "bios" }, isoPath: "/blobs/iso" },
      { mode: "iso", firmware: uefi, isoPath: "/blobs/iso" },
    ]);
  });

  it("gives a BIOS boot no firmware files", () => {
    const defined = defineDomain({
      boot: { ...boot, mode: "disk", firmware: "bios" },
      machine,
      wishes,
      host,
    });
    expect(defined.boot).toEqual({ mode: "disk", firmware: { kind: "bios" } });
  });

  it("says why when the host has no UEFI firmware", () => {
    const failure = failureOf({
      boot: { ...boot, mode: "disk", firmware: "uefi" },
      machine,
      wishes,
      host: { ...host, uefiFirmware: { firmware: null, reason: "the host describes no firmware" } },
    });
    expect(failure).toMatchObject({
      code: "HYPERVISOR_UNAVAILABLE",
      message: expect.stringContaining("the host describes no firmware"),
      details: { remedy: expect.stringContaining("ovmf") },
    });
  });

  it("says what is missing", () => {
    const messages = (["kernel", "uki", "iso"] as const).map((mode) =>
      failureOf({ boot: { ...boot, mode, firmware: "uefi", kernel: null }, machine, wishes, host }).message
    );
    expect(messages).toEqual(
      ["kernel", "uki", "iso"].map((mode) => expect.stringContaining(`with firmware "uefi" and no ${mode},`)),
    );
  });

  it.each(
    [
      { mode: "uki", firmware: "uefi" },
      { mode: "uki", firmware: "bios", uki: "/blobs/uki" },
      { mode: "uki", firmware: "none", uki: "/blobs/uki" },
      { mode: "iso", firmware: "uefi" },
      { mode: "iso", firmware: "none", iso: "/blobs/iso" },
      { mode: "disk", firmware: "none" },
      { mode: "kernel", firmware: "bios" },
      { mode: "kernel", firmware: "none", kernel: null },
    ] as const,
  )("refuses %j with every mode's verdict", (change) => {
    expect(failureOf({ boot: { ...boot, ...change }, machine, wishes, host })).toMatchObject({
      code: "BOOT_MODE_IMPOSSIBLE",
      details: { modes: boot.modes },
    });
  });

  it("has Secure Boot where the firmware has it, and refuses it without UEFI", () => {
    const secure = { ...wishes, secureBoot: true };
    const firmware = { ...host.uefiFirmware.firmware, secureBoot: true };
    const defined = defineDomain({
      boot: { ...boot, mode: "disk", firmware: "uefi" },
      machine,
      wishes: secure,
      host: { ...host, uefiFirmware: { firmware } },
    });
    expect(defined.boot).toEqual({ mode: "disk", firmware: { ...uefi, secureBoot: true } });
    expect(failureOf({ boot, machine, wishes: secure, host })).toMatchObject({
      code: "BOOT_MODE_IMPOSSIBLE",
      message: expect.stringContaining("Secure Boot"),
    });
  });

  it("names the tap device of a bridge by the machine, so that two machines do not share one", () => {
    const tapOf = (uuid: string) => {
      const network = { kind: "bridge", name: "br0" } as const;
      const defined = defineDomain({
        boot,
        machine: { ...machine, uuid },
        wishes: { ...wishes, network },
        host,
      }).network;
      return "tapName" in defined ? defined.tapName : "";
    };
    const uuid = randomUUID();
    // IFNAMSIZ leaves 15 characters.
    expect(tapOf(uuid)).toMatch(/^bootshim[0-9a-f]{6}$/);
    expect(tapOf(uuid)).toBe(tapOf(uuid));
    expect(tapOf(uuid)).not.toBe(tapOf(machine.uuid));
  });

  it("refuses what checkDomainDefinition refuses", () => {
    expect(failureOf({ boot, machine: { ...machine, id: "../x" }, wishes, host }).code).toBe(
      "REQUEST_INVALID",
    );
  });

  it("derives a MAC address from the uuid alone, and another for another uuid", () => {
    const addressOf = (uuid: string, name: string) => {
      const network = { kind: "network", name } as const;
      const defined = defineDomain({
        boot,
        machine: { ...machine, uuid },
        wishes: { ...wishes, network },
        host,
      });
      return defined.network.kind === "network" ? defined.network.macAddress : null;
    };
    const uuid = randomUUID();
    expect(addressOf(uuid, "a")).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
    expect(addressOf(uuid, "a")).toBe(addressOf(uuid, "b"));
    expect(addressOf("c232ab00-9414-11ec-b3c8-9f6bdeced846", "a"))
      .not.toBe(addressOf("c232ab01-9414-11ec-b3c8-9f6bdeced846", "a"));
  });
});
