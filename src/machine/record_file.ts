import { type FileSystem, READ_EXISTING, withOpenFile } from "../host/file_system.ts";
import { ShimError } from "../errors.ts";
import { errnoOf } from "../host/io_error.ts";
import type { MachineId } from "./machine_id.ts";
import { type MachineRecord, parseMachineRecord } from "./machine_record.ts";

/** A record holds a definition and a few disks; this bounds what a damaged one can cost. */
const MAX_RECORD_BYTES = 1024 * 1024;

/**
 * Reads a machine's record from its directory.
 *
 * @param path of the record
 * @throws {ShimError} CACHE_LAYOUT_INVALID when it is missing, no regular file, too large, no record, or another
 *   machine's; errno errors pass
 */
export async function readRecordFile(
  path: string,
  { id, fileSystem }: { readonly id: MachineId; readonly fileSystem: FileSystem },
): Promise<MachineRecord> {
  let bytes: Uint8Array;
  try {
    bytes = await readSmallFile(path, fileSystem);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") throw invalidRecord(path, "it is missing");
    if (errnoOf(error) === "ELOOP") {
      throw invalidRecord(path, "it is a symbolic link, must be a regular file");
    }
    throw error;
  }
  const record = parseMachineRecord(parseJson(bytes, path), `machine record "${path}"`);
  if (record.id !== id) throw invalidRecord(path, `it is of machine "${record.id}", must be of "${id}"`);
  return record;
}

export function invalidRecord(path: string, why: string): ShimError {
  return new ShimError("CACHE_LAYOUT_INVALID", `Cannot use machine record "${path}": ${why}`, {
    details: { remedy: "release the machine and prepare it again", path },
  });
}

async function readSmallFile(path: string, fileSystem: FileSystem): Promise<Uint8Array> {
  return await withOpenFile(path, { flags: READ_EXISTING, fileSystem }, async (file) => {
    const { kind, sizeBytes } = await file.status();
    if (kind !== "file") throw invalidRecord(path, "it is no regular file");
    if (sizeBytes > MAX_RECORD_BYTES) {
      throw invalidRecord(path, `it has ${sizeBytes} bytes, limit is ${MAX_RECORD_BYTES} bytes`);
    }
    const buffer = new Uint8Array(sizeBytes);
    return buffer.subarray(0, await file.read(buffer, 0));
  });
}

function parseJson(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's own words quote what it read, and add nothing that helps.
    throw invalidRecord(path, "it is not a UTF-8 JSON document");
  }
}
