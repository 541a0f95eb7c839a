import type { Architecture } from "../image/platform.ts";
import { type ByteWindow, cannotBeTold, Fields, readPart } from "./byte_window.ts";
import { isTarHeader } from "./disk_packing.ts";
import type { FormatFault } from "./format_fault.ts";
import { type PeFinding, readPe } from "./pe_header.ts";
import { printableText } from "./printable_text.ts";
import { unpackHead } from "./unpack_head.ts";

/**
 * `EFI zboot` unpacks itself and, as a plain `EFI/PE` program and a unified kernel image, is started by firmware only;
 * a `gzip arm64 Image` is unpacked by QEMU.
 */
export type KernelFormat = "bzImage" | "arm64 Image" | "gzip arm64 Image" | "EFI zboot" | "EFI/PE" | "UKI";

export type Kernel = {
  readonly kind: "kernel";
  readonly format: KernelFormat;
  readonly architecture: Architecture;
  /** Whether UEFI can start it. */
  readonly isEfiProgram: boolean;
  /** What the kernel says of itself; null where its format has no such place, or the place no text. */
  readonly version: string | null;
  /** The longest command line it takes, without the NUL; null where its format does not say. */
  readonly commandLineLimitBytes: number | null;
};

/** What the bytes of a kernel layer are; unknown when the window ended too early. */
export type KernelContent =
  | Kernel
  | {
    readonly kind: "not-a-kernel";
    readonly why: string;
    /** None for a dummy: it stands where a layer was wanted, and whoever put it there says by it that there is none. */
    readonly fault?: FormatFault;
  }
  | { readonly kind: "unknown"; readonly why: string };

/** No kernel is so large: ten times the largest ones with everything built in. */
export const MAX_KERNEL_BYTES = 1024 ** 3;
const HEAD_BYTES = 4096;
const MAX_VERSION_BYTES = 256;
const UNKNOWN_HEADER = "it has no bzImage, arm64 Image or EFI/PE header";

/**
 * Reads the first 4 KiB, the headers that they point to (5 KiB at most) and the version string. Never throws on any
 * content.
 *
 * @see https://docs.kernel.org/arch/x86/boot.html#the-real-mode-kernel-header
 * @see https://docs.kernel.org/arch/arm64/booting.html#call-the-kernel-image
 */
export async function recogniseKernel(file: ByteWindow): Promise<KernelContent> {
  if (file.sizeBytes === 0) return notAKernel("the file is empty");
  if (file.sizeBytes >= MAX_KERNEL_BYTES) {
    return notAKernel(tooLargeForKernel(file.sizeBytes), "LIMIT_EXCEEDED");
  }
  const head = await readPart(file, 0, HEAD_BYTES);
  const { fields } = head;
  const pe = await readPe(file, fields);
  // The setup header stands in EFI kernels too, and says more than their PE header.
  if (fields.has(0x1fe, "\x55\xaa") && fields.has(0x202, "HdrS")) {
    return await recogniseBzImage(file, { fields, pe });
  }
  if (fields.has(56, "ARM\x64")) return recogniseArm64(fields, pe.kind === "pe");
  if (fields.has(0, "\x1f\x8b\x08")) return recogniseGzip(fields);
  if (fields.has(0, "MZ")) return recogniseEfi(fields, pe);
  if (head.isCut) return { kind: "unknown", why: cannotBeTold(fields.length) };
  if (isTarHeader(fields.slice(0, 512))) return notAKernel("it is a tar archive, must be the kernel itself");
  if (fields.isZero(0, fields.length)) {
    return { kind: "not-a-kernel", why: "it begins with zeros only: a dummy" };
  }
  return notAKernel(UNKNOWN_HEADER);
}

/** Said of a file of {@link MAX_KERNEL_BYTES} and more, whatever it holds. */
export function tooLargeForKernel(sizeBytes: number): string {
  return `it has ${sizeBytes} bytes, a kernel has less than ${MAX_KERNEL_BYTES}`;
}

function notAKernel(why: string, fault: FormatFault = "FORMAT_MISMATCH"): KernelContent {
  return { kind: "not-a-kernel", why, fault };
}

/** Fields of the setup header by their place in the file, as the boot protocol's table has them. */
async function recogniseBzImage(
  file: ByteWindow,
  { fields, pe }: { fields: Fields; pe: PeFinding },
): Promise<KernelContent> {
  const protocol = fields.u16(0x206) ?? 0;
  const setupBytes = ((fields.u8(0x1f1) || 4) + 1) * 512;
  // In paragraphs of 16 bytes; before protocol 2.04 only half of the field was used.
  const loadedBytes = (protocol >= 0x204 ? fields.u32(0x1f4) ?? 0 : fields.u16(0x1f4) ?? 0) * 16;
  if (protocol < 0x200) {
    return notAKernel(`its boot protocol is 0x${protocol.toString(16)}, must be 2.00 or later`);
  }
  if (protocol >= 0x204 && loadedBytes === 0) return notAKernel("its setup header says that it is empty");
  // The last paragraph need not be full.
  if (protocol >= 0x204 && setupBytes + loadedBytes - 15 > file.sizeBytes) {
    return notAKernel(
      `it is cut off: its setup header says ${setupBytes + loadedBytes} bytes, it has ${file.sizeBytes}`,
    );
  }
  // xloadflags, since protocol 2.12: bit 0 is XLF_KERNEL_64.
  if (protocol >= 0x20c && ((fields.u16(0x236) ?? 0) & 1) === 0) {
    return notAKernel("it is for 32-bit x86, must be for amd64 or arm64");
  }
  const versionAt = fields.u16(0x20e) ?? 0;
  const version = versionAt === 0 || versionAt + 0x200 >= setupBytes
    ? undefined
    : await readPart(file, versionAt + 0x200, MAX_VERSION_BYTES);
  return {
    kind: "kernel",
    format: "bzImage",
    architecture: "amd64",
    isEfiProgram: pe.kind === "pe",
    version: version ? printableText(version.fields.slice(0, MAX_VERSION_BYTES)) : null,
    // Older kernels take 255 bytes (protocol 2.05 and before).
    commandLineLimitBytes: protocol >= 0x206 ? fields.u32(0x238) ?? null : 255,
  };
}

/** Where text_offset may be at most: the image stands so far from a boundary of 2 MiB. */
const MAX_TEXT_OFFSET = 2 * 1024 ** 2;

function recogniseArm64(
  fields: Fields,
  isEfiProgram: boolean,
  format: KernelFormat = "arm64 Image",
): KernelContent {
  const [textOffset, imageBytes, flags] = [fields.u64(8) ?? 0, fields.u64(16) ?? 0, fields.u64(24) ?? 0];
  // Kernels before 3.17 have image_size 0 and leave text_offset in unknown byte order.
  if (imageBytes !== 0 && textOffset > MAX_TEXT_OFFSET) return notAKernel("its text_offset is beyond 2 MiB");
  if (imageBytes > MAX_KERNEL_BYTES) return notAKernel("its image_size is beyond 1 GiB");
  if (flags % 2 === 1) return notAKernel("it is big-endian, which no virtual machine here is");
  return {
    kind: "kernel",
    format,
    architecture: "arm64",
    isEfiProgram,
    version: null,
    commandLineLimitBytes: null,
  };
}

/** Only the beginning is unpacked: whether the rest of the stream is sound, QEMU will tell. */
function recogniseGzip(fields: Fields): KernelContent {
  const packed = fields.slice(0, fields.length);
  const inner = new Fields(unpackHead(packed, { packing: "gzip", maxBytes: 1024 ** 2 }) ?? new Uint8Array());
  if (inner.has(56, "ARM\x64")) return recogniseArm64(inner, inner.has(0, "MZ"), "gzip arm64 Image");
  if (isTarHeader(inner.slice(0, 512))) {
    return notAKernel("it is a tar archive compressed by gzip, must be the kernel itself");
  }
  return notAKernel("it is compressed by gzip, and does not begin with an arm64 Image");
}

function recogniseEfi(fields: Fields, pe: PeFinding): KernelContent {
  if (pe.kind !== "pe") {
    return pe.isUnseen ? { kind: "unknown", why: cannotBeTold(fields.length) } : notAKernel(pe.why);
  }
  // linux/drivers/firmware/efi/libstub/zboot-header.S
  const isZboot = fields.has(4, "zimg");
  const isUki = pe.sections.some(({ name }) => name === ".linux");
  return {
    kind: "kernel",
    format: isUki ? "UKI" : isZboot ? "EFI zboot" : "EFI/PE",
    architecture: pe.architecture,
    isEfiProgram: true,
    version: null,
    commandLineLimitBytes: null,
  };
}
