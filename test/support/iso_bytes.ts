/** Disc images, written field by field as ECMA-119 and El Torito 1.0 say. */
import { bytesWith } from "./disk_bytes.ts";

const SECTOR_BYTES = 2048;

/** A bootable image in the catalog: the first is the default entry, each other has a section of its own. */
export type CatalogEntry = { readonly platform: number; readonly isBootable?: boolean };

export type IsoChanges = {
  readonly volumeId?: string;
  readonly entries?: readonly CatalogEntry[];
  readonly catalogSector?: number;
  readonly hasUdf?: boolean;
  /** Set last, over everything. */
  readonly patch?: Readonly<Record<number, readonly number[] | string>>;
};

export function isoImage(changes: IsoChanges = {}): Uint8Array {
  const { volumeId = "TEST", entries = [], catalogSector = 20 } = changes;
  const iso = bytesWith(1024 * 1024, {
    [16 * SECTOR_BYTES]: "\x01CD001\x01",
    [16 * SECTOR_BYTES + 40]: volumeId.padEnd(32),
  });
  const view = new DataView(iso.buffer);
  let sector = 17;
  if (entries.length > 0) {
    iso.set(Buffer.from("\0CD001\x01EL TORITO SPECIFICATION", "latin1"), sector * SECTOR_BYTES);
    view.setUint32(sector * SECTOR_BYTES + 0x47, catalogSector, true);
    sector += 1;
    if ((catalogSector + 1) * SECTOR_BYTES <= iso.length) {
      iso.set(bootCatalog(entries), catalogSector * SECTOR_BYTES);
    }
  }
  iso.set(Buffer.from("\xffCD001\x01", "latin1"), sector * SECTOR_BYTES);
  if (changes.hasUdf) {
    ["BEA01", "NSR02", "TEA01"].forEach((id, i) =>
      iso.set(Buffer.from(`\0${id}\x01`, "latin1"), (sector + 1 + i) * SECTOR_BYTES)
    );
  }
  for (const [place, bytes] of Object.entries(changes.patch ?? {})) {
    iso.set(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, Number(place));
  }
  return iso;
}

function bootCatalog(entries: readonly CatalogEntry[]): Uint8Array {
  const catalog = new Uint8Array(SECTOR_BYTES);
  const view = new DataView(catalog.buffer);
  const [first, ...others] = entries;
  catalog.set([1, first?.platform ?? 0]);
  catalog.set([0x55, 0xaa], 30);
  let sum = 0;
  for (let at = 0; at < 32; at += 2) sum += view.getUint16(at, true);
  view.setUint16(28, 0x10000 - sum % 0x10000, true);
  catalog[32] = first?.isBootable === false ? 0 : 0x88;
  others.forEach(({ platform, isBootable }, i) => {
    const at = 64 + 64 * i;
    catalog.set([i === others.length - 1 ? 0x91 : 0x90, platform, 1, 0], at);
    catalog[at + 32] = isBootable === false ? 0 : 0x88;
  });
  return catalog;
}
