import { createHash } from "node:crypto";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { writeNewFile } from "../machine/disk_file.ts";
import { renderNoCloudSeed } from "../machine/nocloud_seed.ts";
import type { DiskPlace } from "./machine_disks.ts";
import type { MachineDisk } from "./prepare_document.ts";

/** What a guest is told at its first boot; null for nothing. */
export type ProvisioningWishes = {
  /** An Ignition configuration: JSON. */
  readonly ignition: Uint8Array | null;
  /** cloud-init's user-data, whatever its format. */
  readonly userData: Uint8Array | null;
  /** cloud-init's meta-data, in place of the instance id and host name that are made otherwise. */
  readonly metadata: Uint8Array | null;
};

export const NO_PROVISIONING: ProvisioningWishes = { ignition: null, userData: null, metadata: null };

/** More than any such file has; QEMU and the guest hold it in memory. */
export const MAX_PROVISIONING_BYTES = 8 * 1024 * 1024;

const IGNITION_NAME = "ignition.json";
const SEED_NAME = "seed.iso";

/**
 * What of it is compared when the machine is prepared again: a hash, because the contents may be secret and the record
 * is kept.
 */
export function recordedProvisioning(wishes: ProvisioningWishes): Readonly<Record<string, string | null>> {
  const hash = (bytes: Uint8Array | null) =>
    bytes && `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  return {
    ignition: hash(wishes.ignition),
    userData: hash(wishes.userData),
    metadata: hash(wishes.metadata),
  };
}

/** @throws {ShimError} REQUEST_INVALID for what no guest could use, LIMIT_EXCEEDED for more than 8 MiB */
export function checkProvisioning(wishes: ProvisioningWishes): void {
  for (const [what, bytes] of Object.entries(wishes)) {
    if (bytes === null || bytes.length <= MAX_PROVISIONING_BYTES) continue;
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot use ${what}: it has ${bytes.length} bytes, limit is ${MAX_PROVISIONING_BYTES} bytes`,
    );
  }
  if (wishes.ignition !== null) requireJsonObject(wishes.ignition);
}

function requireJsonObject(bytes: Uint8Array): void {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's own words would quote the file, which may hold secrets.
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
  throw new ShimError("REQUEST_INVALID", "Cannot use the Ignition configuration: it is not a JSON object", {
    details: { remedy: "Butane files are turned into Ignition by: butane FILE" },
  });
}

/**
 * Writes what was wished for into a machine's folder.
 *
 * @returns the Ignition file's place, and the seed as the last of the machine's disks
 */
export async function makeProvisioning(
  wishes: ProvisioningWishes,
  { id, uuid }: { readonly id: string; readonly uuid: string },
  { directory, place, fileSystem, folder }: DiskPlace,
): Promise<{ ignitionPath: string | null; seed: MachineDisk | null }> {
  const { ignition, userData, metadata } = wishes;
  if (ignition !== null) await writeNewFile(join(directory, IGNITION_NAME), ignition, { fileSystem, folder });
  return {
    ignitionPath: ignition === null ? null : join(place, IGNITION_NAME),
    seed: userData === null && metadata === null ? null : await makeSeed(),
  };

  async function makeSeed(): Promise<MachineDisk> {
    const bytes = renderNoCloudSeed([
      // Both must be there, or cloud-init does not take it for a seed.
      { name: "meta-data", bytes: metadata ?? encode(`instance-id: ${uuid}\nlocal-hostname: ${id}\n`) },
      { name: "user-data", bytes: userData ?? encode("#cloud-config\n{}\n") },
    ]);
    await writeNewFile(join(directory, SEED_NAME), bytes, { fileSystem, folder });
    return {
      role: "seed",
      path: join(place, SEED_NAME),
      format: "raw",
      readOnly: true,
      serial: "cidata",
      virtualSizeBytes: bytes.length,
      method: "created",
      backing: null,
    };
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
