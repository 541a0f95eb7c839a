/**
 * Says what is wrong with the machines on disk. Knows the contract, and deliberately nothing of the store's code: plain
 * `node:fs`.
 */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

type Disk = {
  path: string;
  format: string;
  readOnly: boolean;
  virtualSizeBytes: number;
  backing: { path: string } | null;
};
type Document = { disks: Disk[]; nvram: string | null; domainXml: string };

/**
 * @param root where nobody but the owner may look (no group)
 * @param options.isAfterKill directories that were being made or removed may be there
 * @returns one line for each violation; an empty list is sound
 */
export function machineProblems(root: string, { isAfterKill = false } = {}): string[] {
  const problems: string[] = [];
  const machines = join(root, "machines");
  for (const name of readdirSync(machines)) {
    if (name.startsWith(".")) {
      if (!isAfterKill) problems.push(`machines/ holds ${name}`);
    } else {
      problems.push(...problemsOf(join(machines, name), name).map((problem) => `${name}: ${problem}`));
    }
  }
  return problems;
}

function problemsOf(directory: string, id: string): string[] {
  const problems: string[] = [];
  const mode = (path: string) => (lstatSync(path).mode & 0o7777).toString(8);
  const record: { id: string; writableFiles: string[]; document: Document } = JSON.parse(
    readFileSync(join(directory, "machine.json"), "utf8"),
  );
  if (record.id !== id) problems.push(`its record is of ${record.id}`);
  if (mode(directory) !== "700") problems.push(`its directory has mode ${mode(directory)}`);
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (!lstatSync(path).isFile()) problems.push(`${name} is no regular file`);
    const expected = name === "machine.json" || record.writableFiles.includes(name) ? "600" : "400";
    if (mode(path) !== expected) problems.push(`${name} has mode ${mode(path)}, must have ${expected}`);
  }
  const { disks, nvram, domainXml } = record.document;
  if (!readFileSync(domainXml, "utf8").endsWith("</domain>\n")) problems.push("its domain XML is cut off");
  if (nvram !== null && lstatSync(nvram).size === 0) problems.push("its NVRAM is empty");
  for (const { path, format, readOnly, virtualSizeBytes, backing } of disks) {
    if (readOnly) continue;
    if (!path.startsWith(`${directory}/`)) problems.push(`its disk is ${path}`);
    const bytes = readFileSync(path);
    if (format === "raw") {
      if (bytes.length !== virtualSizeBytes) problems.push(`${path} has ${bytes.length} bytes`);
      continue;
    }
    // The header's fields, as QEMU's docs/interop/qcow2.txt has them.
    const isWhole = bytes.readUInt32BE(0) === 0x514649fb &&
      bytes.readBigUInt64BE(24) === BigInt(virtualSizeBytes);
    if (!isWhole) problems.push(`${path} is no qcow2 disk of ${virtualSizeBytes} bytes`);
    const at = Number(bytes.readBigUInt64BE(8));
    const base = at === 0 ? null : bytes.toString("utf8", at, at + bytes.readUInt32BE(16));
    if (base !== (backing?.path ?? null)) problems.push(`${path} names the base ${base}`);
    if (base !== null && !lstatSync(base).isFile()) problems.push(`the base ${base} of ${path} is no file`);
  }
  return problems;
}
