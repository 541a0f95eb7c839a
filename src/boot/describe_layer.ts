import type { LayerFindings, UnusableDisk } from "./boot_verdicts.ts";
import { squashfsFault } from "./boot_verdicts.ts";
import type { DiskContent } from "./disk_content.ts";
import type { InitramfsContent } from "./initramfs_content.ts";
import type { IsoContent } from "./iso_content.ts";
import type { KernelContent } from "./kernel_content.ts";
import type { PartitionedDisk } from "./partition_table.ts";
import type { Role } from "./prepared_boot.ts";
import type { UkiContent } from "./uki_content.ts";

/** What a recogniser found, whichever it was. */
export type LayerContent =
  | DiskContent
  | UnusableDisk
  | KernelContent
  | InitramfsContent
  | UkiContent
  | IsoContent;

/** What was found in a layer, and the same in a line for people; null where there is nothing to tell. */
export type LayerDescription = { readonly content: LayerContent | null; readonly summary: string | null };

/** Tells what was found in the layer of a role. */
export function describeLayer(role: Role, findings: LayerFindings): LayerDescription {
  const { rootfs, squashfs, kernel, initramfs, uki, iso } = findings;
  switch (role) {
    case "rootfs":
      return describe(rootfs, (disk) => disk.kind === "unusable" ? null : diskSummary(disk));
    case "squashfs":
      return describe(squashfs, (disk) => {
        const fault = squashfsFault(disk);
        return fault === undefined ? diskSummary(disk) : `no squashfs: ${fault}`;
      });
    case "kernel":
      return describe(kernel, (content) => kernelSummary(content, findings.kernelUki));
    case "initramfs":
      return describe(initramfs, ({ why }) => why === undefined ? null : `no initramfs: ${why}`);
    case "uki":
      return describe(uki, ukiSummary);
    case "iso":
      return describe(iso, isoSummary);
    case "cmdline":
      return NOTHING;
  }
}

const NOTHING: LayerDescription = { content: null, summary: null };

function describe<T extends LayerContent>(
  content: T | undefined,
  summarise: (content: T) => string | null,
): LayerDescription {
  return content ? { content, summary: summarise(content) } : NOTHING;
}

/** Kinds of partitions that a line tells; a table may have 128. */
const MAX_KINDS = 5;

function diskSummary(disk: DiskContent): string | null {
  switch (disk.kind) {
    case "partitioned":
      return partitionsSummary(disk);
    case "file-system":
      return `${disk.name} file system`;
    case "volume":
      return disk.name;
    case "container":
      return `${disk.name} file`;
    case "unknown":
      // The verdict on its mode says so already.
      return null;
  }
}

function partitionsSummary({ table, partitions, isHybrid }: PartitionedDisk): string {
  const counts = new Map<string, number>();
  for (const { name, type } of partitions) {
    const kind = name ?? `type ${type}`;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const kinds = [...counts].map(([kind, count]) => count === 1 ? kind : `${count} x ${kind}`);
  const told = kinds.slice(0, MAX_KINDS);
  if (kinds.length > MAX_KINDS) told.push(`${kinds.length - MAX_KINDS} other kinds`);
  const name = `${isHybrid ? "hybrid " : ""}${table.toUpperCase()} disk`;
  return `${name}: ${told.length === 0 ? "no partitions" : told.join(", ")}`;
}

function kernelSummary(kernel: KernelContent, uki: UkiContent | undefined): string | null {
  if (kernel.kind !== "kernel") return null;
  if (uki?.kind === "uki") return ukiSummary(uki);
  return listed(`${kernel.format} for ${kernel.architecture}`, kernel.version);
}

function ukiSummary(uki: UkiContent): string | null {
  if (uki.kind !== "uki") return null;
  return listed(
    `unified kernel image for ${uki.architecture}`,
    prettyName(uki.osrel),
    uki.uname && `kernel ${uki.uname}`,
  );
}

/** @see https://www.freedesktop.org/software/systemd/man/latest/os-release.html */
function prettyName(osrel: string | null): string | null {
  const [, , name = null] = /^PRETTY_NAME=(["']?)(.*)\1$/m.exec(osrel ?? "") ?? [];
  return name;
}

function isoSummary(iso: IsoContent): string | null {
  if (iso.kind !== "iso") return null;
  const { hasBiosBoot, hasUefiBoot } = iso;
  const boots = [...(hasBiosBoot ? ["bios"] : []), ...(hasUefiBoot ? ["uefi"] : [])].join(" and ");
  return listed(
    iso.volumeId === null ? "disc image" : `disc image "${iso.volumeId}"`,
    iso.hasUdf ? "with UDF" : null,
    boots === "" ? null : `boots by ${boots}`,
    iso.hybrid && `with ${iso.hybrid.toUpperCase()} for USB sticks`,
  );
}

function listed(...parts: readonly (string | null)[]): string {
  return parts.filter((part) => part !== null && part !== "").join(", ");
}
