/** Reads one hostile document of 4 MiB, and says by how many bytes the process grew at most. Argument: its {@link Kind}. */
import { readFileSync } from "node:fs";
import { MAX_DOCUMENT_BYTES, readJson } from "../../src/image/json_document.ts";

const KINDS = {
  "arrays that are not closed": () => "[".repeat(MAX_DOCUMENT_BYTES),
  "objects that are not closed": () => '{"a":'.repeat(MAX_DOCUMENT_BYTES / 5),
  "nested arrays": () => "[".repeat(MAX_DOCUMENT_BYTES / 2) + "]".repeat(MAX_DOCUMENT_BYTES / 2),
  "empty arrays": () => `[${"[],".repeat(MAX_DOCUMENT_BYTES / 3 - 2)}[]]`,
  "empty objects": () => `[${"{},".repeat(MAX_DOCUMENT_BYTES / 3 - 2)}{}]`,
  "objects of one field": () => `[${'{"a":0},'.repeat(MAX_DOCUMENT_BYTES / 8 - 2)}0]`,
  "as many values as may be": () => `[${"{},".repeat(124_990)}0]`,
  "as many names as may be": () =>
    `{${Array.from({ length: 249_990 }, (_, i) => `"${i.toString(36)}":0`).join(",")}}`,
  "names": () => `{${Array.from({ length: 380_000 }, (_, i) => `"${i.toString(36)}":0`).join(",")}}`,
  "numbers": () => `[${"1.5,".repeat(MAX_DOCUMENT_BYTES / 4 - 2)}0]`,
};

export type Kind = keyof typeof KINDS;
export const kinds = Object.keys(KINDS) as readonly Kind[];

/** The kernel's own measure: what was resident at most. */
function peakBytes(): number {
  const [, kib = "0"] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return Number(kib) * 1024;
}

const kind = process.argv[2];
if (kind !== undefined && kind in KINDS) {
  const bytes = new TextEncoder().encode(KINDS[kind as Kind]());
  readJsonOnce(new TextEncoder().encode("{}"));
  const before = peakBytes();
  readJsonOnce(bytes);
  console.log(`grew ${peakBytes() - before}`);
}

function readJsonOnce(bytes: Uint8Array): void {
  try {
    readJson(bytes, "document");
  } catch {
    // Whether it is refused, other tests tell.
  }
}
