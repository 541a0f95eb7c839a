import type { BootDisk, PreparedBoot } from "../../src/boot/prepared_boot.ts";
import {
  defineDomain,
  type DomainHost,
  type DomainMachine,
  type DomainWishes,
} from "../../src/hypervisor/define_domain.ts";
import type { DomainDefinition, DomainDisk } from "../../src/hypervisor/domain_definition.ts";

const BLOBS = "/var/lib/bootshim/images/blobs/sha256";
const MACHINE = "/var/lib/bootshim/machines/vm-1";
const KERNEL = `${BLOBS}/${"a1".repeat(32)}`;
const INITRAMFS = `${BLOBS}/${"b2".repeat(32)}`;
const ROOTFS = `${BLOBS}/${"c3".repeat(32)}`;
const UKI = `${BLOBS}/${"e5".repeat(32)}`;
const ISO = `${BLOBS}/${"f6".repeat(32)}`;
const SQUASHFS = `${BLOBS}/${"d4".repeat(32)}`;

const kernelBoot: PreparedBoot = {
  architecture: "amd64",
  variant: "virtualization",
  mode: "kernel",
  firmware: "none",
  kernel: KERNEL,
  initramfs: INITRAMFS,
  uki: null,
  iso: null,
  cmdline: "console=ttyS0 quiet",
  reason: "the image has a kernel and an initramfs",
  modes: [],
  disks: [],
};

const diskBoot: PreparedBoot = {
  ...kernelBoot,
  mode: "disk",
  firmware: "bios",
  kernel: null,
  initramfs: null,
  cmdline: "",
};

const ukiBoot: PreparedBoot = {
  ...kernelBoot,
  mode: "uki",
  firmware: "uefi",
  kernel: null,
  initramfs: null,
  uki: UKI,
};

const isoBoot: PreparedBoot = { ...diskBoot, mode: "iso", iso: ISO };

const rootDisk: BootDisk = {
  role: "rootfs",
  path: ROOTFS,
  format: "raw",
  virtualSizeBytes: 1_073_741_824,
  readOnly: false,
  serial: "machineboot",
};

const overlay: DomainDisk = {
  path: `${MACHINE}/disk.qcow2`,
  format: "qcow2",
  readOnly: false,
  serial: "machineboot",
  backing: { path: ROOTFS, format: "raw" },
};

const squashfs: DomainDisk = {
  path: SQUASHFS,
  format: "raw",
  readOnly: true,
  serial: "machineboot",
  backing: null,
};

function shape(
  boot: PreparedBoot,
  { machine, wishes, host }: {
    machine?: Partial<DomainMachine>;
    wishes?: Partial<DomainWishes>;
    host?: Partial<DomainHost>;
  } = {},
): DomainDefinition {
  return defineDomain({
    boot,
    machine: {
      id: "vm-1",
      uuid: "0d5c9b0e-6e1f-4a8e-9d2c-3b7f1a2e4c55",
      disks: [],
      nvramPath: null,
      consoleLogPath: `${MACHINE}/console.log`,
      ignitionPath: null,
      runtimeDirectory: MACHINE,
      ...machine,
    },
    wishes: {
      memoryMib: 1024,
      hugepages: false,
      cpus: 1,
      tpm: false,
      secureBoot: false,
      network: { kind: "none" },
      ...wishes,
    },
    host: {
      acceleration: "tcg",
      uefiFirmware: {
        firmware: {
          loaderPath: "/usr/share/OVMF/OVMF_CODE_4M.fd",
          loaderFormat: "raw",
          nvramTemplatePath: "/usr/share/OVMF/OVMF_VARS_4M.fd",
          nvramTemplateFormat: "raw",
          secureBoot: false,
        },
      },
      keepOwnership: true,
      ...host,
    },
  });
}

const armFirmware: Partial<DomainHost> = {
  uefiFirmware: {
    firmware: {
      loaderPath: "/usr/share/AAVMF/AAVMF_CODE.fd",
      loaderFormat: "raw",
      nvramTemplatePath: "/usr/share/AAVMF/AAVMF_VARS.fd",
      nvramTemplateFormat: "raw",
      secureBoot: false,
    },
  },
};

const secureFirmware: Partial<DomainHost> = {
  uefiFirmware: {
    firmware: {
      loaderPath: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
      loaderFormat: "raw",
      nvramTemplatePath: "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
      nvramTemplateFormat: "raw",
      secureBoot: true,
    },
  },
};

const withOverlay = { disks: [overlay] };
const nvramPath = `${MACHINE}/nvram.fd`;
const withNvram = { disks: [overlay], nvramPath };
const uefiDiskBoot: PreparedBoot = { ...diskBoot, firmware: "uefi", disks: [rootDisk] };

/** Every shape of machine that has a rendering of its own; the names are those of the golden files. */
export const MACHINE_SHAPES: Readonly<Record<string, DomainDefinition>> = {
  "kernel": shape(kernelBoot),
  "kernel_without_initramfs": shape({ ...kernelBoot, initramfs: null, cmdline: "" }),
  "kernel_overlay": shape(
    { ...kernelBoot, cmdline: "console=ttyS0 root=/dev/vda rw", disks: [rootDisk] },
    { machine: withOverlay },
  ),
  "kernel_squashfs": shape(kernelBoot, { machine: { disks: [squashfs] } }),
  "kernel_overlay_and_squashfs": shape(kernelBoot, {
    machine: { disks: [overlay, { ...squashfs, serial: null }] },
  }),
  "bios_overlay": shape({ ...diskBoot, disks: [rootDisk] }, { machine: withOverlay }),
  "bios_raw_copy": shape({ ...diskBoot, disks: [rootDisk] }, {
    machine: { disks: [{ ...overlay, path: `${MACHINE}/disk.raw`, format: "raw", backing: null }] },
  }),
  "bios_qcow2_over_qcow2": shape({ ...diskBoot, disks: [{ ...rootDisk, format: "qcow2" }] }, {
    machine: { disks: [{ ...overlay, backing: { path: ROOTFS, format: "qcow2" } }] },
  }),
  "uefi_overlay": shape(uefiDiskBoot, { machine: withNvram }),
  "uefi_secure_boot_and_tpm": shape(uefiDiskBoot, {
    machine: withNvram,
    wishes: { secureBoot: true, tpm: true },
    host: secureFirmware,
  }),
  "ignition": shape({ ...diskBoot, disks: [rootDisk] }, {
    machine: { ...withOverlay, ignitionPath: `${MACHINE}/ignition.json` },
  }),
  "hugepages": shape(kernelBoot, { wishes: { hugepages: true } }),
  "network_bridge": shape(kernelBoot, { wishes: { network: { kind: "bridge", name: "br0" } } }),
  "without_runtime_directory": shape(kernelBoot, { machine: { runtimeDirectory: null } }),
  "arm64_kernel": shape({ ...kernelBoot, architecture: "arm64", cmdline: "console=ttyAMA0" }),
  "arm64_uefi_overlay": shape({ ...uefiDiskBoot, architecture: "arm64" }, {
    machine: withNvram,
    host: armFirmware,
  }),
  "kernel_uefi": shape({ ...kernelBoot, firmware: "uefi" }, { machine: { nvramPath } }),
  "uki": shape(ukiBoot, { machine: { nvramPath } }),
  "arm64_uki": shape({ ...ukiBoot, architecture: "arm64" }, { machine: { nvramPath }, host: armFirmware }),
  "iso_bios": shape(isoBoot),
  "iso_bios_and_disk": shape(isoBoot, {
    machine: { disks: [{ ...overlay, serial: null, backing: null }] },
  }),
  "iso_uefi": shape({ ...isoBoot, firmware: "uefi" }, { machine: { nvramPath } }),
  "arm64_iso": shape({ ...isoBoot, firmware: "uefi", architecture: "arm64" }, {
    machine: { nvramPath },
    host: armFirmware,
  }),
  "kvm": shape(uefiDiskBoot, {
    machine: withNvram,
    wishes: { memoryMib: 4096, cpus: 4 },
    host: { acceleration: "kvm" },
  }),
  "arm64_kvm": shape({ ...kernelBoot, architecture: "arm64", cmdline: "console=ttyAMA0" }, {
    wishes: { cpus: 16 },
    host: { acceleration: "kvm" },
  }),
  "session": shape(kernelBoot, { wishes: { network: { kind: "user" } }, host: { keepOwnership: false } }),
  "network_user": shape(kernelBoot, { wishes: { network: { kind: "user" } } }),
  "network_by_name": shape(kernelBoot, { wishes: { network: { kind: "network", name: "default" } } }),
  // Every mark that XML, a shell or QEMU's options give a meaning, where it may occur.
  "special_characters": shape(
    {
      ...kernelBoot,
      kernel: `/srv/a,b="c" & <d>'s $HOME/kernel`,
      cmdline: `a,b c="d e" </cmdline><qemu:commandline> ]]> &amp; $(id) 'x' \\ é 😀`,
    },
    { machine: { disks: [{ ...overlay, path: `/srv/a,b=c & <d>'s "e" $HOME/disk.qcow2` }] } },
  ),
};
