/**
 * Says what is wrong with the machines on disk. Knows the contract, and deliberately nothing of the store's code: plain
 * `node:fs`.
 */
import { existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

type Disk = {
  path: string;
  format: string;
  readOnly: boolean;
  virtualSizeBytes: number;
  backing: { path: string } | null;
};
/** Where a table's entry leads, without its flags. */
const OFFSET = 0x00ff_ffff_ffff_fe00n;
/** Has another form of entry. */
const IS_PACKED = 1n << 62n;

type Document = { disks: Disk[]; nvram: string | null; domainXml: string };

export type MachineExpectations = {
  /** Directories that were being made or removed may be there. */
  readonly isAfterKill?: boolean;
  /** The group that may use machines; none: nobody but the owner. */
  readonly groupId?: number;
};

/** @returns one line for each violation; an empty list is sound */
export function machineProblems(root: string, expected: MachineExpectations = {}): string[] {
  const problems: string[] = [];
  const machines = join(root, "machines");
  if (!existsSync(machines)) return [];
  for (const name of readdirSync(machines)) {
    if (name.startsWith(".")) {
      if (!expected.isAfterKill) problems.push(`machines/ holds ${name}`);
    } else {
      problems.push(...problemsOf(join(machines, name), name, expected).map((each) => `${name}: ${each}`));
    }
  }
  return problems;
}

function problemsOf(directory: string, id: string, { groupId }: MachineExpectations): string[] {
  const problems: string[] = [];
  const checkAccess = (path: string, name: string, expected: number) => {
    const { mode, gid } = lstatSync(path);
    const wished = groupId === undefined ? expected & 0o700 : expected;
    if ((mode & 0o7777) !== wished) {
      problems.push(`${name} has mode ${(mode & 0o7777).toString(8)}, must have ${wished.toString(8)}`);
    }
    if (groupId !== undefined && gid !== groupId) problems.push(`${name} is group ${gid}'s`);
  };
  if (!existsSync(join(directory, "machine.json"))) return ["it has no record"];
  const record: { id: string; writableFiles: string[]; document: Document } = JSON.parse(
    readFileSync(join(directory, "machine.json"), "utf8"),
  );
  if (record.id !== id) problems.push(`its record is of ${record.id}`);
  checkAccess(directory, "its directory", 0o750);
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (!lstatSync(path).isFile()) problems.push(`${name} is no regular file`);
    const isWritable = record.writableFiles.includes(name);
    // What the guest said is written, and owned, by whoever runs it.
    if (name === "console.log") continue;
    checkAccess(path, name, name === "machine.json" ? 0o640 : isWritable ? 0o660 : 0o440);
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
    if (!isWhole) continue;
    problems.push(...cutOffParts(bytes).map((part) => `${path} is cut off before the end of its ${part}`));
    const at = Number(bytes.readBigUInt64BE(8));
    const base = at === 0 ? null : bytes.toString("utf8", at, at + bytes.readUInt32BE(16));
    if (base !== (backing?.path ?? null)) problems.push(`${path} names the base ${base}`);
    if (base !== null && !lstatSync(base).isFile()) problems.push(`the base ${base} of ${path} is no file`);
  }
  return problems;
}

/** What of a qcow2 file its tables say to be where the file has ended. */
function cutOffParts(file: Uint8Array): string[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const clusterBytes = 2 ** view.getUint32(20);
  const parts: string[] = [];
  const tableAt = (offset: number, entries: number, name: string): number[] => {
    if (offset + entries * 8 > file.length) {
      parts.push(name);
      return [];
    }
    return Array.from({ length: entries }, (_none, i) => view.getBigUint64(offset + i * 8))
      .filter((entry) => (entry & IS_PACKED) === 0n).map((entry) => Number(entry & OFFSET))
      .filter((at) => at !== 0);
  };
  for (const at of tableAt(Number(view.getBigUint64(40)), view.getUint32(36), "table of tables")) {
    for (const cluster of tableAt(at, clusterBytes / 8, "table of clusters")) {
      // The last cluster may be shorter in files that others wrote.
      if (cluster >= file.length) parts.push(`cluster at ${cluster}`);
    }
  }
  const refcountEntries = view.getUint32(56) * clusterBytes / 8;
  for (const at of tableAt(Number(view.getBigUint64(48)), refcountEntries, "table of refcounts")) {
    if (at + clusterBytes > file.length) parts.push("refcounts");
  }
  return parts;
}
