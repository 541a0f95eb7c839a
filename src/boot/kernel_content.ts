import type { Architecture } from "../image/platform.ts";
import { type ByteWindow, Fields } from "./byte_window.ts";

/** What the bytes of a kernel layer are. */
export type KernelContent =
  | {
    readonly kind: "kernel";
    readonly format: "bzImage" | "arm64 Image" | "EFI/PE";
    readonly architecture: Architecture;
  }
  | { readonly kind: "not-a-kernel"; readonly why: string };

const HEAD_BYTES = 4096;

/** Machine field of the COFF header (PE Format, "Machine Types"). */
const PE_MACHINES: Readonly<Record<number, Architecture>> = { 0x8664: "amd64", 0xaa64: "arm64" };

/**
 * Reads at most 4 KiB of the start and the 8 bytes a PE header points to. Never throws on any content.
 *
 * @see https://docs.kernel.org/arch/x86/boot.html#the-real-mode-kernel-header
 * @see https://docs.kernel.org/arch/arm64/booting.html#call-the-kernel-image
 */
export async function recogniseKernel(file: ByteWindow): Promise<KernelContent> {
  if (file.sizeBytes === 0) return { kind: "not-a-kernel", why: "the file is empty" };
  const head = new Fields(await file.read(0, HEAD_BYTES));
  // x86: the setup header, protocol 2.00 or later. It stands in EFI kernels too, and says more than their PE header.
  if (head.has(0x1fe, "\x55\xaa") && head.has(0x202, "HdrS")) {
    return { kind: "kernel", format: "bzImage", architecture: "amd64" };
  }
  // arm64: "ARM\x64" at 56.
  if (head.has(56, "ARM\x64")) return { kind: "kernel", format: "arm64 Image", architecture: "arm64" };
  if (head.has(0, "MZ")) return await recognisePe(file, head);
  if (head.isZero(0, head.length)) return { kind: "not-a-kernel", why: "it begins with zeros only: a dummy" };
  return { kind: "not-a-kernel", why: "it has no bzImage, arm64 Image or EFI/PE header" };
}

async function recognisePe(file: ByteWindow, head: Fields): Promise<KernelContent> {
  const offset = head.u32(0x3c) ?? 0;
  const header = new Fields(await file.read(offset, 6));
  const machine = header.has(0, "PE\0\0") ? header.u16(4) : undefined;
  const architecture = machine === undefined ? undefined : PE_MACHINES[machine];
  if (architecture) return { kind: "kernel", format: "EFI/PE", architecture };
  return { kind: "not-a-kernel", why: "its EFI/PE header is broken or for an unknown machine" };
}

const INITRAMFS_MAGIC: readonly string[] = [
  "070701", // cpio newc
  "070702", // cpio newc with checksums
  "\x1f\x8b", // gzip
  "\xfd7zXZ\0", // xz
  "\x28\xb5\x2f\xfd", // zstd
  "\x02\x21\x4c\x18", // lz4 legacy
  "\x5d\0\0", // lzma
  "BZh", // bzip2
  "\x89LZO\0", // lzo
];

/** Whether the kernel could unpack it: a cpio archive or one of the compressions its unpacker knows. */
export async function isInitramfs(file: ByteWindow): Promise<boolean> {
  const head = new Fields(await file.read(0, 8));
  return INITRAMFS_MAGIC.some((magic) => head.has(0, magic));
}
