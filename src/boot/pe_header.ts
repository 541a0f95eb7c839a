import type { Architecture } from "../image/platform.ts";
import { type ByteWindow, type Fields, readPart } from "./byte_window.ts";
import type { FormatFault } from "./format_fault.ts";

/** A part of the program: where its bytes lie in the file, and where firmware puts them in memory. */
export type PeSection = {
  readonly name: string;
  readonly fileOffset: number;
  readonly fileBytes: number;
  readonly memoryOffset: number;
  readonly memoryBytes: number;
};

export type PeProgram = {
  readonly kind: "pe";
  readonly architecture: Architecture;
  readonly sections: readonly PeSection[];
};

/** An EFI program, or why it is none; `isUnseen` when the window ended before its header did. */
export type PeFinding =
  | PeProgram
  | {
    readonly kind: "not-pe";
    readonly why: string;
    readonly isUnseen: boolean;
    readonly fault: FormatFault;
  };

const NOT_PE = { kind: "not-pe", isUnseen: false, fault: "FORMAT_MISMATCH" } as const;
/** It is an EFI program, and its table of sections leads readers astray. */
const UNSAFE_PE = { ...NOT_PE, fault: "FORMAT_UNSAFE" } as const;

/** "Machine Types" */
const MACHINES: Readonly<Record<number, Architecture>> = { 0x8664: "amd64", 0xaa64: "arm64" };
const PE32_PLUS = 0x20b;
const SUBSYSTEM_EFI_APPLICATION = 10;
/** What Windows' loader takes; the field holds 65,535. */
export const MAX_SECTIONS = 96;
const COFF_BYTES = 24;
const SECTION_BYTES = 40;

/**
 * The headers of a 64-bit EFI program. Reads at most 5 KiB where its first field points, which may be anywhere.
 *
 * @param head the first 64 bytes or more
 * @see https://learn.microsoft.com/en-us/windows/win32/debug/pe-format
 */
export async function readPe(file: ByteWindow, head: Fields): Promise<PeFinding> {
  if (!head.has(0, "MZ")) return { ...NOT_PE, why: "it is no EFI program" };
  const at = head.u32(0x3c);
  if (at === undefined) return { ...NOT_PE, why: "its EFI/PE header is cut off" };
  const unseen = { ...NOT_PE, why: "its EFI/PE header was not seen", isUnseen: true };

  const coff = await readPart(file, at, COFF_BYTES);
  if (coff.isCut) return unseen;
  const machine = coff.fields.has(0, "PE\0\0") ? coff.fields.u16(4) : undefined;
  const architecture = machine === undefined ? undefined : MACHINES[machine];
  const sectionCount = coff.fields.u16(6) ?? 0;
  const optionalBytes = coff.fields.u16(20) ?? 0;
  if (architecture === undefined || coff.fields.length < COFF_BYTES) {
    return { ...NOT_PE, why: "its EFI/PE header is broken or for an unknown machine" };
  }
  if (sectionCount > MAX_SECTIONS) {
    return {
      ...UNSAFE_PE,
      why: `its EFI/PE header counts ${sectionCount} sections, at most ${MAX_SECTIONS}`,
    };
  }
  // Of the optional header the part that every PE32+ has; the data directories behind it are of no interest.
  const optional = await readPart(file, at + COFF_BYTES, 112);
  const table = await readPart(file, at + COFF_BYTES + optionalBytes, sectionCount * SECTION_BYTES);
  if (optional.isCut || table.isCut) return unseen;
  if (
    optionalBytes < 112 || optional.fields.u16(0) !== PE32_PLUS ||
    optional.fields.u16(68) !== SUBSYSTEM_EFI_APPLICATION
  ) {
    return { ...NOT_PE, why: "its PE header is not that of a 64-bit EFI application" };
  }
  if (table.fields.length < sectionCount * SECTION_BYTES) {
    return { ...UNSAFE_PE, why: "its table of sections goes beyond the file" };
  }
  return { kind: "pe", architecture, sections: sectionsOf(table.fields, sectionCount) };
}

function sectionsOf(table: Fields, count: number): PeSection[] {
  return Array.from({ length: count }, (_, i) => {
    const field = (offset: number) => table.u32(i * SECTION_BYTES + offset) ?? 0;
    return {
      name: new TextDecoder("latin1").decode(table.slice(i * SECTION_BYTES, 8)).replace(/\0.*$/s, ""),
      memoryBytes: field(8),
      memoryOffset: field(12),
      fileBytes: field(16),
      fileOffset: field(20),
    };
  });
}
