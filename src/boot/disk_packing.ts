import { ShimError } from "../errors.ts";
import { Fields } from "./byte_window.ts";

/** How the bytes of a disk layer are compressed. */
export type Compression = "gzip" | "zstd";

/**
 * What lies around a disk in its layer. Whether a compressed layer holds the disk itself or a tar with the disk in it
 * shows only when it is unpacked; without compression it is such a tar.
 */
export type DiskPacking = { readonly compression: Compression | null };

/** All that {@link recognisePacking} looks at. */
export const PACKING_HEAD_BYTES = 512;

/** Names of compressions in the last word of a media type: `…rootfs+gzip`, `….tar.gz`, `application/x-xz`. */
const NAME_OF_SUFFIX: Readonly<Record<string, string>> = {
  gzip: "gzip",
  gz: "gzip",
  zstd: "zstd",
  zst: "zstd",
  xz: "xz",
  bzip2: "bzip2",
  bz2: "bzip2",
  lz4: "lz4",
};

type Magic = { readonly name: string; readonly characters: string };

const MAGICS: readonly Magic[] = [
  // RFC 1952: the third byte is the method, and there is only one, deflate.
  { name: "gzip", characters: "\x1f\x8b\x08" },
  { name: "zstd", characters: "\x28\xb5\x2f\xfd" },
  { name: "xz", characters: "\xfd7zXZ\0" },
  { name: "lz4", characters: "\x04\x22\x4d\x18" },
  // The fourth byte is the block size, "1" to "9"; what follows it is the first block's own mark.
  ...Array.from({ length: 9 }, (_, i) => ({ name: "bzip2", characters: `BZh${i + 1}1AY&SY` })),
];

/**
 * What a layer is packed in, or null for one that is not: then its bytes are the disk. The bytes decide; a media type
 * that says otherwise is refused, because some other reader would believe it.
 *
 * @param head the layer's first {@link PACKING_HEAD_BYTES} bytes, or all of a smaller one; with fewer than four of
 *   them the media type is believed
 * @throws {ShimError} FORMAT_MISMATCH for a compression that is not supported, and for one that is not what the media
 *   type says
 */
export function recognisePacking(mediaType: string, head: Uint8Array): DiskPacking | null {
  const said = compressionOf(mediaType);
  const found = head.length < 4 ? said : compressionIn(head);
  if (said !== null && found !== said) {
    throw cannotUnpack(
      `its media type "${mediaType}" says ${said}, its first bytes are ${
        found === null ? "no such stream" : `those of ${found}`
      }`,
      "publish the layer with the media type of what it is",
    );
  }
  if (found === "gzip" || found === "zstd") return { compression: found };
  if (found !== null) {
    throw cannotUnpack(
      `it is compressed with ${found}, must be gzip, zstd, or not compressed`,
      "publish the disk compressed with zstd or gzip, or as it is",
    );
  }
  return isTarHeader(head) ? { compression: null } : null;
}

/**
 * Whether the block is a header of any tar dialect: its checksum is right. No other content has six octal digits that
 * happen to be the sum of all bytes around them.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html "ustar Interchange Format"
 */
export function isTarHeader(block: Uint8Array): boolean {
  if (block.length < 512) return false;
  const field = String.fromCharCode(...block.subarray(148, 156));
  const [, digits] = /^ *([0-7]+)[\0 ]/.exec(field) ?? [];
  if (digits === undefined) return false;
  let sum = 8 * 0x20;
  for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) sum += block[i] ?? 0;
  return Number.parseInt(digits, 8) === sum;
}

/** What a layer that cannot be unpacked is called. It is what its manifest says, so its publisher must mend it. */
export function cannotUnpack(why: string, remedy?: string, cause?: unknown): ShimError {
  return new ShimError("FORMAT_MISMATCH", `Cannot unpack the disk layer: ${why}`, {
    cause,
    details: { remedy: remedy ?? "the image's publisher must publish it anew: the layer's bytes are broken" },
  });
}

function compressionOf(mediaType: string): string | null {
  const suffix = mediaType.toLowerCase().split(/[+./-]/).at(-1) ?? "";
  return (Object.hasOwn(NAME_OF_SUFFIX, suffix) ? NAME_OF_SUFFIX[suffix] : undefined) ?? null;
}

function compressionIn(head: Uint8Array): string | null {
  const fields = new Fields(head);
  const magic = MAGICS.find(({ characters }) => fields.has(0, characters));
  if (magic) return magic.name;
  // RFC 8878, section 3.1.2: frames to be skipped may come first, and do where several threads compressed. (lz4 has the
  // same, so what follows decides.)
  let offset = 0;
  while (isSkippableMagic(fields.u32(offset))) offset += 8 + (fields.u32(offset + 4) ?? Infinity);
  return offset > 0 && fields.has(offset, "\x28\xb5\x2f\xfd") ? "zstd" : null;
}

/** Little-endian 0x184D2A50 to 0x184D2A5F. */
export function isSkippableMagic(magic: number | undefined): boolean {
  return magic !== undefined && magic >= 0x184d2a50 && magic <= 0x184d2a5f;
}
