import { type ByteWindow, type Fields, readPart } from "./byte_window.ts";

type Signature = { readonly name: string; readonly at: number; readonly characters: string };

/**
 * Formats that only look like a disk to whoever reads their header: what QEMU's block drivers probe for, and
 * compressions. At the start of the file.
 *
 * @see https://gitlab.com/qemu-project/qemu/-/tree/v7.2.0/block the functions named `…_probe`
 */
const AT_START: readonly Signature[] = [
  { name: "qcow2", at: 0, characters: "QFI\xfb" },
  { name: "qed", at: 0, characters: "QED\0" },
  { name: "vmdk", at: 0, characters: "KDMV" },
  { name: "vmdk", at: 0, characters: "COWD" },
  { name: "vmdk", at: 0, characters: "\xbe\xba\xfe\xca\0\0\0\0" },
  { name: "vmdk", at: 0, characters: "# Disk DescriptorFile" },
  { name: "vdi", at: 64, characters: "\x7f\x10\xda\xbe" },
  { name: "vhdx", at: 0, characters: "vhdxfile" },
  { name: "vhd", at: 0, characters: "conectix" },
  { name: "luks", at: 0, characters: "LUKS\xba\xbe" },
  { name: "parallels", at: 0, characters: "WithoutFreeSpace" },
  { name: "parallels", at: 0, characters: "WithouFreSpacExt" },
  { name: "bochs", at: 0, characters: "Bochs Virtual HD Image" },
  { name: "cloop", at: 0, characters: "#!/bin/sh\n#V2.0 Format\nmodprobe cloop" },
  { name: "dmg", at: 0, characters: "koly" },
  { name: "gzip", at: 0, characters: "\x1f\x8b\x08" },
  { name: "zstd", at: 0, characters: "\x28\xb5\x2f\xfd" },
  { name: "xz", at: 0, characters: "\xfd7zXZ\0" },
  { name: "bzip2", at: 4, characters: "1AY&SY" },
  { name: "lz4", at: 0, characters: "\x04\x22\x4d\x18" },
];

/** Formats that are told by their end: `at` counts back from there. */
const AT_END: readonly Signature[] = [
  { name: "vhd", at: 512, characters: "conectix" },
  // Virtual PC before 2004 wrote one byte less.
  { name: "vhd", at: 511, characters: "conectix" },
  // Of a stream-optimised vmdk: footer marker, the header once more, end-of-stream marker, a sector each.
  { name: "vmdk", at: 1024, characters: "KDMV" },
  { name: "dmg", at: 512, characters: "koly" },
];

const TAIL_BYTES = 1024;

/** The names of every container format whose signature a file carries. Where its window ends early, by its head only. */
export async function containersOf(file: ByteWindow, head: Fields): Promise<readonly string[]> {
  const { fields: tail } = await readPart(
    file,
    Math.max(0, file.sizeBytes - TAIL_BYTES),
    Math.min(TAIL_BYTES, file.sizeBytes),
  );
  const atEnd = AT_END.filter(({ at, characters }) => tail.has(tail.length - at, characters));
  return [...new Set([...containersAtStart(head), ...atEnd.map(({ name }) => name)])];
}

/** As {@link containersOf}, by the head alone. */
export function containersAtStart(head: Fields): readonly string[] {
  const names = AT_START.filter(({ at, characters }) => head.has(at, characters)).map(({ name }) => name);
  return [...new Set(isVmdkDescriptor(head) ? [...names, "vmdk"] : names)];
}

/** QEMU takes for a vmdk every text whose first line, after comments and blank ones, is `version=` 1 to 3. */
function isVmdkDescriptor(head: Fields): boolean {
  const text = new TextDecoder("latin1").decode(head.slice(0, 2048));
  const line = text.split("\n").find((each) => !each.startsWith("#") && each.trim() !== "");
  return /^ *version=[123]\r?$/.test(line ?? "");
}
