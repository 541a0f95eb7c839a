import type { Architecture } from "../image/platform.ts";
import { type ByteWindow, cannotBeTold, readPart } from "./byte_window.ts";
import type { FormatFault } from "./format_fault.ts";
import { type PeSection, readPe } from "./pe_header.ts";
import { printableText } from "./printable_text.ts";

/** A unified kernel image: kernel, initramfs and command line in one EFI program. */
export type UnifiedKernel = {
  readonly kind: "uki";
  readonly architecture: Architecture;
  /** Names of all its sections, in order. */
  readonly sections: readonly string[];
  /** Text of those sections, for people; null when there is none, or none that is printable and at most 64 KiB. */
  readonly cmdline: string | null;
  readonly osrel: string | null;
  readonly uname: string | null;
  /** Whether one of these lies where the window does not reach: what it says is not known then, though it says something. */
  readonly isTextUnseen: boolean;
};

export type UkiContent =
  | UnifiedKernel
  | { readonly kind: "not-a-uki"; readonly why: string; readonly fault: FormatFault }
  | { readonly kind: "unknown"; readonly why: string };

/** With an initramfs and a whole squashfs inside. */
export const MAX_UKI_BYTES = 4 * 1024 ** 3;
const MAX_TEXT_BYTES = 64 * 1024;
/** What a program may have several of (UAPI.5, sections "UKI Components" and "Multi-profile UKIs"). */
const REPEATABLE: readonly string[] = [".dtbauto", ".hwids", ".efifw"];

/**
 * Reads the headers (5 KiB at most, and the first 4 KiB) and the text sections (64 KiB each at most). The kernel and the
 * initramfs inside are not looked at. Never throws on any content.
 *
 * @see https://uapi-group.org/specifications/specs/unified_kernel_image/
 */
export async function recogniseUki(file: ByteWindow): Promise<UkiContent> {
  if (file.sizeBytes > MAX_UKI_BYTES) {
    return notAUki(tooLargeForUki(file.sizeBytes), "LIMIT_EXCEEDED");
  }
  const head = await readPart(file, 0, 4096);
  if (head.isCut && !head.fields.has(0, "MZ")) {
    return { kind: "unknown", why: cannotBeTold(head.fields.length) };
  }
  const pe = await readPe(file, head.fields);
  if (pe.kind !== "pe") {
    return pe.isUnseen
      ? { kind: "unknown", why: cannotBeTold(head.fields.length) }
      : notAUki(pe.why, pe.fault);
  }
  const why = faultOf(pe.sections, file.sizeBytes);
  if (why !== undefined) return notAUki(why, "FORMAT_UNSAFE");
  const textOf = async (name: string): Promise<Text> => {
    const section = pe.sections.find((each) => each.name === name);
    return section ? await readText(file, section) : NO_TEXT;
  };
  const [cmdline, osrel, uname] = [await textOf(".cmdline"), await textOf(".osrel"), await textOf(".uname")];
  return {
    kind: "uki",
    architecture: pe.architecture,
    sections: pe.sections.map(({ name }) => name),
    cmdline: cmdline.text,
    osrel: osrel.text,
    uname: uname.text,
    isTextUnseen: [cmdline, osrel, uname].some(({ isUnseen }) => isUnseen),
  };
}

/** Said of a file of more than {@link MAX_UKI_BYTES}, whatever it holds. */
export function tooLargeForUki(sizeBytes: number): string {
  return `it has ${sizeBytes} bytes, at most ${MAX_UKI_BYTES}`;
}

function notAUki(why: string, fault: FormatFault): UkiContent {
  return { kind: "not-a-uki", why, fault };
}

/** What makes a table of sections one that two readers would read differently, or one without a kernel. */
function faultOf(sections: readonly PeSection[], sizeBytes: number): string | undefined {
  const outside = sections.find(({ fileOffset, fileBytes }) => fileOffset + fileBytes > sizeBytes);
  if (outside) return `its section ${quote(outside)} goes beyond the file`;
  const wrapping = sections.find(({ memoryOffset, memoryBytes }) => memoryOffset + memoryBytes > 2 ** 32);
  if (wrapping) return `its section ${quote(wrapping)} goes beyond 4 GiB of memory`;
  const twice = duplicateOf(sections);
  if (twice) return `it has two sections ${quote(twice)}`;
  const inFile = overlapOf(
    sections.map((each) => ({ each, start: each.fileOffset, length: each.fileBytes })),
  );
  if (inFile) return `its sections ${quote(inFile[0])} and ${quote(inFile[1])} overlap in the file`;
  const inMemory = overlapOf(
    sections.map((each) => ({ each, start: each.memoryOffset, length: each.memoryBytes })),
  );
  if (inMemory) return `its sections ${quote(inMemory[0])} and ${quote(inMemory[1])} overlap in memory`;
  const linux = sections.find(({ name }) => name === ".linux");
  if (!linux) return "it has no section .linux";
  return linux.fileBytes === 0 ? "its section .linux is empty" : undefined;
}

/** A section from a hostile file may have any name. */
function quote({ name }: PeSection): string {
  return printableText(new TextEncoder().encode(name)) ?? JSON.stringify(name);
}

/** Each profile begins with a section `.profile` and may replace sections of the base. */
function duplicateOf(sections: readonly PeSection[]): PeSection | undefined {
  let seen = new Set<string>();
  return sections.find(({ name }) => {
    if (name === ".profile") seen = new Set();
    if (REPEATABLE.includes(name)) return false;
    if (seen.has(name)) return true;
    seen.add(name);
    return false;
  });
}

function overlapOf(
  ranges: readonly { readonly each: PeSection; readonly start: number; readonly length: number }[],
): readonly [PeSection, PeSection] | undefined {
  const sorted = ranges.filter(({ length }) => length > 0).toSorted((a, b) => a.start - b.start);
  for (const [i, range] of sorted.entries()) {
    const next = sorted[i + 1];
    if (next && range.start + range.length > next.start) return [range.each, next.each];
  }
  return undefined;
}

type Text = { readonly text: string | null; readonly isUnseen: boolean };

const NO_TEXT: Text = { text: null, isUnseen: false };

async function readText(
  file: ByteWindow,
  { fileOffset, fileBytes, memoryBytes }: PeSection,
): Promise<Text> {
  // In the file a section is filled up to a whole block; in memory it is as long as it is.
  const lengthBytes = memoryBytes === 0 ? fileBytes : Math.min(fileBytes, memoryBytes);
  if (lengthBytes > MAX_TEXT_BYTES) return NO_TEXT;
  const { fields, isCut } = await readPart(file, fileOffset, lengthBytes);
  return isCut
    ? { text: null, isUnseen: true }
    : { text: printableText(fields.slice(0, lengthBytes)), isUnseen: false };
}
