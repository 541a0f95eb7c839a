import { join } from "node:path";
import { type Access, setAccess, writeDurably } from "../host/durable.ts";
import { type FileSystem, READ_EXISTING, withOpenFile } from "../host/file_system.ts";
import { ensurePrivateDirectory } from "../host/private_directory.ts";
import type { MachineRecord } from "./machine_record.ts";

export const RECORD_NAME = "machine.json";

/** The bits of a file or directory, without those of a group when there is none to share with. */
export function sharedAccess(mode: number, groupId: number | null): Access {
  return { mode: groupId === null ? mode & 0o700 : mode, groupId };
}

/**
 * Makes a directory that was filled a machine's: gives every file its access, writes the record, and makes all of it
 * durable. Rejects with an errno error.
 */
export async function sealMachine(
  directory: string,
  record: MachineRecord,
  { groupId, fileSystem }: { readonly groupId: number | null; readonly fileSystem: FileSystem },
): Promise<void> {
  const missing = new Set(record.writableFiles);
  for (const name of await fileSystem.readdir(directory)) {
    const mode = record.writableFiles.includes(name) ? 0o660 : 0o440;
    missing.delete(name);
    await withOpenFile(join(directory, name), { flags: READ_EXISTING, fileSystem }, async (file) => {
      if ((await file.status()).kind !== "file") {
        throw new TypeError(`build made "${name}", which is no regular file`);
      }
      await setAccess(file, sharedAccess(mode, groupId));
      await file.sync();
    });
  }
  if (missing.size > 0) {
    throw new TypeError(`build did not make ${[...missing].join(", ")}, which its record names`);
  }
  await ensurePrivateDirectory(directory, { ...sharedAccess(0o750, groupId), fileSystem });
  const bytes = new TextEncoder().encode(JSON.stringify(record, undefined, 2) + "\n");
  // Syncs the directory as well: its bits, and the names of all files made before.
  await writeDurably(join(directory, RECORD_NAME), bytes, { ...sharedAccess(0o640, groupId), fileSystem });
}
