import { randomBytes } from "node:crypto";
import type { PrepareWish } from "../../src/agent/prepare.ts";
import type { MachineWishes } from "../../src/agent/prepare_machine.ts";
import type { Reference } from "../../src/image/reference.ts";
import { extDisk } from "./disk_bytes.ts";
import { osImage, publishLayout, randomKernel } from "./os_image.ts";

/** A machine as nobody asked for anything special; acceleration and network need no host. */
export const MACHINE: MachineWishes = {
  id: "vm-1",
  uuid: null,
  diskSizeBytes: null,
  diskFormat: "auto",
  clone: "auto",
  memoryMib: 256,
  cpus: 1,
  acceleration: "tcg",
  network: { kind: "none" },
  tpm: false,
  secureBoot: false,
  hugepages: false,
  dataDisks: [],
  provisioning: { ignition: null, userData: null, metadata: null },
};

export function prepareWish(reference: Reference, machine: Partial<MachineWishes> | null = {}): PrepareWish {
  return {
    reference,
    architecture: "amd64",
    variant: "virtualization",
    pull: "missing",
    boot: "auto",
    firmware: "auto",
    cmdline: undefined,
    appends: [],
    machine: machine && { ...MACHINE, ...machine },
  };
}

/** A bare ext4 file system in the eyes of who looks at its superblock; the rest is noise with holes. */
export function randomRootfs(sizeBytes = 1024 * 1024): Uint8Array {
  const disk = extDisk({ incompat: 0x40 }, sizeBytes);
  disk.set(randomBytes(5000), 200_000);
  disk.set(randomBytes(100), sizeBytes - 100);
  return disk;
}

/** Publishes an image that boots by kernel, with this disk, as a layout. */
export async function publishRootfs(directory: string, rootfs: Uint8Array): Promise<Reference> {
  const { reference } = await publishLayout(directory, [osImage({ kernel: randomKernel(), rootfs })]);
  return reference;
}
