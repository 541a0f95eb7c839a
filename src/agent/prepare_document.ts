import { z } from "zod";
import { machineUuid } from "../machine/machine_id.ts";

/**
 * The document that `prepare -o json` prints and that the API answers: one schema for its type, its parsing and its
 * description. Sizes are bytes, paths absolute, `null` where there is no such part.
 */

const absolutePath = z.string().startsWith("/");
const digest = z.string().regex(/^sha(256:[a-f0-9]{64}|512:[a-f0-9]{128})$/);
const sizeBytes = z.int().min(0);
const bootMode = z.enum(["disk", "kernel", "uki", "iso"]);

const layer = z.strictObject({
  role: z.enum(["rootfs", "kernel", "initramfs", "squashfs", "cmdline", "uki", "iso"]),
  mediaType: z.string(),
  digest,
  sizeBytes,
  path: absolutePath,
});

const boot = z.strictObject({
  mode: bootMode,
  firmware: z.enum(["none", "bios", "uefi"]),
  kernel: absolutePath.nullable(),
  initramfs: absolutePath.nullable(),
  uki: absolutePath.nullable(),
  iso: absolutePath.nullable(),
  cmdline: z.string(),
  reason: z.string(),
  modes: z.array(z.strictObject({ mode: bootMode, possible: z.boolean(), why: z.string() })),
});

const diskFormat = z.enum(["raw", "qcow2"]);

const machineDisk = z.strictObject({
  /** A layer's, or: `scratch` beside a CD, `data` as asked for, `seed` of cloud-init. */
  role: z.enum(["rootfs", "squashfs", "scratch", "data", "seed"]),
  path: absolutePath,
  format: diskFormat,
  readOnly: z.boolean(),
  serial: z.string().nullable(),
  virtualSizeBytes: sizeBytes,
  /**
   * `reflink`, `copy`: the machine's own, whole. `overlay`: its own writes, above the cached layer. `shared`: the cached
   * layer itself, read-only. `created`: of no layer.
   */
  method: z.enum(["reflink", "overlay", "copy", "shared", "created"]),
  backing: z.strictObject({ path: absolutePath, format: diskFormat }).nullable(),
});
export type MachineDisk = z.infer<typeof machineDisk>;

export const machineDocument = z.strictObject({
  id: z.string(),
  uuid: machineUuid,
  directory: absolutePath,
  disks: z.array(machineDisk),
  nvram: absolutePath.nullable(),
  domainXml: absolutePath,
  qemuCommand: z.array(z.string()),
});
export type MachineDocument = z.infer<typeof machineDocument>;

export const prepareDocument = z.strictObject({
  reference: z.string(),
  /** What the reference resolved to: an index or a manifest. */
  digest,
  manifestDigest: digest,
  architecture: z.enum(["amd64", "arm64"]),
  variant: z.enum(["virtualization", "metal"]),
  /** Whether nothing had to be transferred. */
  cached: z.boolean(),
  transferredBytes: sizeBytes,
  layers: z.array(layer),
  boot,
  machine: machineDocument.nullable(),
});
export type PrepareDocument = z.infer<typeof prepareDocument>;
