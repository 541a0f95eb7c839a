import { type ByteWindow, cannotBeTold, type Fields, readPart } from "./byte_window.ts";
import { containersAtStart } from "./container_format.ts";
import type { FormatFault } from "./format_fault.ts";
import { printableText } from "./printable_text.ts";

/** A disc image. */
export type IsoImage = {
  readonly kind: "iso";
  /** Null when it has none, or is UDF only. */
  readonly volumeId: string | null;
  readonly hasUdf: boolean;
  /** Undefined when the boot catalog lies where the window does not reach; `unseen` then says so. */
  readonly hasBiosBoot: boolean | undefined;
  readonly hasUefiBoot: boolean | undefined;
  readonly unseen: string | null;
  /** The partition table in its unused first 32 KiB, for those who write the image to a disk. */
  readonly hybrid: "gpt" | "mbr" | null;
};

export type IsoContent =
  | IsoImage
  | { readonly kind: "not-an-iso"; readonly why: string; readonly fault: FormatFault }
  | { readonly kind: "unknown"; readonly why: string };

const SECTOR_BYTES = 2048;
/** ECMA-119, section 8.1: the volume descriptors begin here. */
const FIRST_DESCRIPTOR = 16;
const LAST_DESCRIPTOR = 31;
const HEAD_BYTES = (LAST_DESCRIPTOR + 1) * SECTOR_BYTES;

/** Platform ids of El Torito 1.0, section 2.1, and UEFI 2.10, section 13.3.2.1. */
const PLATFORM_BIOS = 0;
const PLATFORM_UEFI = 0xef;

/**
 * Reads the first 64 KiB and one sector of boot catalog, which may lie anywhere. Never throws on any content.
 *
 * @see https://ecma-international.org/publications-and-standards/standards/ecma-119/ 4th edition, sections 8.1 to 8.4
 * @see https://pdos.csail.mit.edu/6.828/2018/readings/boot-cdrom.pdf El Torito 1.0, section 2
 */
export async function recogniseIso(file: ByteWindow): Promise<IsoContent> {
  const head = await readPart(file, 0, HEAD_BYTES);
  const { fields } = head;
  const [container] = containersAtStart(fields);
  if (container !== undefined) {
    return notAnIso(`it begins with the header of a ${container} file`);
  }
  const descriptors = descriptorsOf(fields);
  const primary = descriptors.find(({ type, id }) => type === 1 && id === "CD001");
  const hasUdf = descriptors.some(({ id }) => id === "NSR02" || id === "NSR03");
  if (!primary && !hasUdf) {
    if (head.isCut) return { kind: "unknown", why: cannotBeTold(fields.length) };
    return notAnIso("it has no volume descriptor of ISO 9660 or UDF");
  }
  return {
    kind: "iso",
    // ECMA-119, section 8.4.7: 32 characters.
    volumeId: primary ? printableText(fields.slice(primary.at + 40, 32)) : null,
    hasUdf,
    ...await readBootCatalog(file, fields),
    hybrid: fields.has(512, "EFI PART") ? "gpt" : fields.has(510, "\x55\xaa") ? "mbr" : null,
  };
}

function notAnIso(why: string): IsoContent {
  return { kind: "not-an-iso", why, fault: "FORMAT_MISMATCH" };
}

type Descriptor = { readonly at: number; readonly type: number; readonly id: string };

/** Those of ISO 9660 up to their terminator, then those of UDF. */
function descriptorsOf(fields: Fields): Descriptor[] {
  const descriptors: Descriptor[] = [];
  for (let sector = FIRST_DESCRIPTOR; sector <= LAST_DESCRIPTOR; sector++) {
    const at = sector * SECTOR_BYTES;
    const id = new TextDecoder("latin1").decode(fields.slice(at + 1, 5));
    if (!["CD001", "BEA01", "NSR02", "NSR03", "BOOT2", "TEA01"].includes(id)) break;
    descriptors.push({ at, type: fields.u8(at) ?? 0, id });
  }
  return descriptors;
}

type Boots = Pick<IsoImage, "hasBiosBoot" | "hasUefiBoot" | "unseen">;

async function readBootCatalog(file: ByteWindow, fields: Fields): Promise<Boots> {
  const record = (FIRST_DESCRIPTOR + 1) * SECTOR_BYTES;
  if (!fields.has(record, "\0CD001\x01EL TORITO SPECIFICATION")) {
    return { hasBiosBoot: false, hasUefiBoot: false, unseen: null };
  }
  const catalog = await readPart(file, (fields.u32(record + 0x47) ?? 0) * SECTOR_BYTES, SECTOR_BYTES);
  if (catalog.isCut) {
    return { hasBiosBoot: undefined, hasUefiBoot: undefined, unseen: cannotBeTold(fields.length) };
  }
  const platforms = bootPlatforms(catalog.fields);
  return {
    hasBiosBoot: platforms.has(PLATFORM_BIOS),
    hasUefiBoot: platforms.has(PLATFORM_UEFI),
    unseen: null,
  };
}

const ENTRY_BYTES = 32;
const BOOTABLE = 0x88;

/** The platforms of all bootable entries: the default one, then those of each section. */
function bootPlatforms(catalog: Fields): ReadonlySet<number> {
  const platforms = new Set<number>();
  // The validation entry: its number, its key bytes, and 16-bit words whose sum is 0.
  let sum = 0;
  for (let at = 0; at < ENTRY_BYTES; at += 2) sum += catalog.u16(at) ?? 0;
  if (catalog.u8(0) !== 1 || !catalog.has(30, "\x55\xaa") || sum % 0x10000 !== 0) return platforms;
  if (catalog.u8(ENTRY_BYTES) === BOOTABLE) platforms.add(catalog.u8(1) ?? PLATFORM_BIOS);
  let at = 2 * ENTRY_BYTES;
  // 0x90 heads a section, 0x91 the last one.
  for (let isLast = false; !isLast && (catalog.u8(at) === 0x90 || catalog.u8(at) === 0x91);) {
    isLast = catalog.u8(at) === 0x91;
    const platform = catalog.u8(at + 1) ?? 0;
    const count = catalog.u16(at + 2) ?? 0;
    at += ENTRY_BYTES;
    for (let i = 0; i < count && at < catalog.length; i++, at += ENTRY_BYTES) {
      if (catalog.u8(at) === BOOTABLE) platforms.add(platform);
      // Extensions of an entry: 0x44, the last one without bit 5 of its flags.
      while (catalog.u8(at + ENTRY_BYTES) === 0x44 && at < catalog.length) at += ENTRY_BYTES;
    }
  }
  return platforms;
}
