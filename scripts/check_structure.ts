/**
 * Keeps the cut of `src/`: imports go down the list only, edges do not know each other, each foreign library has its
 * rooms, no file name that says nothing, no file that is more than one concept. Prints every breach, exits 1 on any.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import process from "node:process";

/** From the ground up; folders in one row are edges that must not import each other. */
const ORDER: readonly (readonly string[])[] = [
  ["errors"],
  ["image"],
  ["boot"],
  ["hypervisor"],
  ["host"],
  ["registry", "content", "machine", "libvirt", "qemu"],
  ["agent"],
  ["config"],
  ["api"],
  ["cli"],
  ["main"],
];

const PURE = ["errors", "image", "boot", "hypervisor"];
/** What pure code may take from the runtime: computation, no I/O. */
const PURE_BUILTINS = ["node:crypto", "node:path", "node:zlib"];

const ROOMS: Readonly<Record<string, readonly string[]>> = {
  koffi: ["host", "libvirt"],
  undici: ["registry"],
  hono: ["api"],
  "@hono/node-server": ["api"],
  "@opentelemetry/api": ["api"],
  commander: ["cli"],
  "cli-progress": ["cli"],
  "pretty-bytes": ["cli"],
  "@logtape/logtape": ["cli", "main"],
  "smol-toml": ["config"],
  "fast-xml-parser": ["libvirt"],
  "tar/header": ["content"],
  "tar/pax": ["content"],
};

const BANNED_NAMES = /^(utils?|common|helpers?|index|manager|data|info)\.ts$/;
const MAX_LINES = 400;

const source = join(import.meta.dirname ?? ".", "..", "src");
const breaches: string[] = [];

function roomOf(path: string): string {
  return path.split("/")[0]?.replace(/\.ts$/, "") ?? "";
}

function rankOf(room: string): number {
  return ORDER.findIndex((row) => row.includes(room));
}

function checkImport(file: string, specifier: string): void {
  const room = roomOf(file);
  if (specifier.startsWith(".")) {
    const target = roomOf(normalize(join(dirname(file), specifier)));
    if (target === room) return;
    if (rankOf(target) === -1) {
      breaches.push(`${file}: imports "${specifier}" from a folder that has no place in the order`);
    } else if (rankOf(target) >= rankOf(room)) {
      breaches.push(`${file}: imports "${target}/", which does not lie below "${room}/"`);
    }
    return;
  }
  if (specifier.startsWith("node:")) {
    if (PURE.includes(room) && !PURE_BUILTINS.includes(specifier)) {
      breaches.push(`${file}: pure code imports "${specifier}"`);
    }
    return;
  }
  const rooms = ROOMS[specifier];
  if (rooms && !rooms.includes(room)) {
    breaches.push(`${file}: imports "${specifier}", which belongs in ${rooms.join(", ")}`);
  }
  if (!rooms && specifier !== "zod") {
    breaches.push(
      `${file}: imports "${specifier}", which has no room; give it one in ${
        relative(process.cwd(), import.meta.filename ?? "")
      }`,
    );
  }
}

for (const entry of readdirSync(source, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
  const file = relative(source, join(entry.parentPath, entry.name));
  const text = readFileSync(join(source, file), "utf8");
  if (rankOf(roomOf(file)) === -1) breaches.push(`${file}: its folder has no place in the order`);
  if (BANNED_NAMES.test(entry.name) || !/^[a-z0-9_]+\.ts$/.test(entry.name)) {
    breaches.push(`${file}: a name that says nothing, or not in snake_case`);
  }
  const lines = text.split("\n").length - 1;
  if (lines > MAX_LINES) breaches.push(`${file}: ${lines} lines, at most ${MAX_LINES}`);
  for (const match of text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"|\bimport\("([^"]+)"\)/gm)) {
    checkImport(file, match[1] ?? match[2] ?? "");
  }
  if (
    /\bDeno\b|\bprocess\.(argv|env|exit)\b/.test(text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "")) &&
    file !== "main.ts"
  ) {
    breaches.push(`${file}: reads the process; only main.ts may`);
  }
  if (/: any\b|\bas any\b|<any>|@ts-ignore|@ts-nocheck/.test(text)) breaches.push(`${file}: a loose type`);
}

for (const breach of breaches) console.error(`structure: ${breach}`);
process.exit(breaches.length > 0 ? 1 : 0);
