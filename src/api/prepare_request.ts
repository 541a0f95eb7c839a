import { z } from "zod";
import type { PrepareWish } from "../agent/prepare.ts";
import type { MachineWishes } from "../agent/prepare_machine.ts";
import { ShimError } from "../errors.ts";
import type { Architecture } from "../image/platform.ts";
import { requireArchitecture, requireVariant } from "../image/platform.ts";
import { parseReference } from "../image/reference.ts";
import { machineUuid } from "../machine/machine_id.ts";

/** What `POST /v1/prepare` and `PUT /v1/machines/ID` take. Sizes are bytes. */

const MIB = 2 ** 20;

/** Three provisioning files of 8 MiB each, in Base64, and all else. */
export const MAX_PREPARE_BODY_BYTES = 34 * MIB;

const text = z.string().max(64 * 1024);
const size = z.int().min(1);
const base64 = z.string().meta({ contentEncoding: "base64" });

export const machineRequest = z.strictObject({
  uuid: machineUuid.describe("the machine's UUID; default: drawn at random").optional(),
  diskSizeBytes: size.describe("guest-visible size of its disk; grows, never shrinks").optional(),
  diskFormat: z.enum(["auto", "raw", "qcow2"]).default("auto"),
  clone: z.enum(["auto", "reflink", "overlay", "copy"]).default("auto"),
  memoryBytes: size.multipleOf(MIB).default(1024 * MIB),
  cpus: z.int().min(1).max(9999).default(1),
  acceleration: z.enum(["auto", "kvm", "tcg"]).default("auto"),
  network: z.string().min(1).max(100).describe("none, user, NAME of a libvirt network, or bridge:NAME")
    .default(
      "user",
    ),
  tpm: z.boolean().default(false),
  secureBoot: z.boolean().default(false),
  hugepages: z.boolean().default(false),
  dataDisks: z.array(z.strictObject({ sizeBytes: size, serial: z.string().min(1).max(20).optional() })).max(
    26,
  )
    .default([]),
  ignition: z.string().describe("an Ignition configuration").optional(),
  ignitionBase64: base64.describe("the same as bytes, in place of it").optional(),
  userData: z.string().describe("cloud-init's user-data").optional(),
  userDataBase64: base64.describe("the same as bytes, in place of it; gzip, say").optional(),
  metadata: z.string().describe("cloud-init's meta-data").optional(),
  metadataBase64: base64.describe("the same as bytes, in place of it").optional(),
});

const imageRequest = z.strictObject({
  reference: text.describe("HOST/REPOSITORY[:TAG][@DIGEST]"),
  architecture: z.string().max(20).describe("amd64, arm64; default: the host's").optional(),
  variant: z.string().max(20).describe("virtualization, metal").default("virtualization"),
  pull: z.enum(["missing", "always", "never"]).default("missing"),
  boot: z.enum(["auto", "disk", "kernel", "uki", "iso"]).default("auto"),
  firmware: z.enum(["auto", "bios", "uefi"]).default("auto"),
  cmdline: text.describe("in place of the image's").optional(),
  append: z.array(text).max(256).describe("KEY[=VALUE]; each replaces or adds one kernel parameter").default(
    [],
  ),
});

export const prepareRequest = imageRequest.extend({
  machine: machineRequest.extend({ id: z.string().max(64) }).optional(),
});
export const machinePutRequest = imageRequest.extend({ machine: machineRequest.optional() });

/** @throws {ShimError} REFERENCE_INVALID, REQUEST_INVALID */
export function prepareWishOf(
  request: z.output<typeof prepareRequest>,
  { hostArchitecture }: { readonly hostArchitecture: Architecture },
): PrepareWish {
  const { architecture, machine } = request;
  return {
    reference: parseReference(request.reference),
    architecture: architecture === undefined ? hostArchitecture : requireArchitecture(architecture),
    variant: requireVariant(request.variant),
    pull: request.pull,
    boot: request.boot,
    firmware: request.firmware,
    cmdline: request.cmdline,
    appends: request.append,
    machine: machine ? machineWishesOf(machine) : null,
  };
}

function machineWishesOf(machine: z.output<typeof machineRequest> & { readonly id: string }): MachineWishes {
  return {
    id: machine.id,
    uuid: machine.uuid?.toLowerCase() ?? null,
    diskSizeBytes: machine.diskSizeBytes ?? null,
    diskFormat: machine.diskFormat,
    clone: machine.clone,
    memoryMib: machine.memoryBytes / MIB,
    cpus: machine.cpus,
    acceleration: machine.acceleration,
    network: networkOf(machine.network),
    tpm: machine.tpm,
    secureBoot: machine.secureBoot,
    hugepages: machine.hugepages,
    dataDisks: machine.dataDisks.map(({ sizeBytes, serial }, index) => ({
      sizeBytes,
      serial: serial ?? `data${index + 1}`,
    })),
    provisioning: {
      ignition: bytesOf(machine, "ignition"),
      userData: bytesOf(machine, "userData"),
      metadata: bytesOf(machine, "metadata"),
    },
  };
}

/** One provisioning file, as text or as bytes. @throws {ShimError} REQUEST_INVALID */
function bytesOf(
  machine: z.output<typeof machineRequest>,
  name: "ignition" | "userData" | "metadata",
): Uint8Array | null {
  const written = machine[name];
  const encoded = machine[`${name}Base64`];
  if (encoded === undefined) return written === undefined ? null : new TextEncoder().encode(written);
  const refuse = (why: string) =>
    new ShimError("REQUEST_INVALID", `Cannot use the body: machine.${name}Base64: ${why}`, {
      details: { issues: [{ path: ["machine", `${name}Base64`], message: why }] },
    });
  if (written !== undefined) throw refuse(`machine.${name} is given, too`);
  const bytes = Buffer.from(encoded, "base64");
  // The decoder leaves out what it does not know; no pattern does this for megabytes.
  if (bytes.toString("base64") !== encoded) throw refuse("must be Base64 with its padding");
  return new Uint8Array(bytes);
}

function networkOf(word: string): MachineWishes["network"] {
  if (word === "none" || word === "user") return { kind: word };
  if (word.startsWith("bridge:")) return { kind: "bridge", name: word.slice("bridge:".length) };
  return { kind: "network", name: word };
}
