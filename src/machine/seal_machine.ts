import { basename, join } from "node:path";
import { type Access, setAccess } from "../host/durable.ts";
import {
  CREATE_NEW,
  type FileSystem,
  OPEN_DIRECTORY,
  type OpenFile,
  READ_EXISTING,
  withOpenFile,
} from "../host/file_system.ts";
import type { MachineRecord } from "./machine_record.ts";

export const RECORD_NAME = "machine.json";

/** The bits of a file or directory, without those of a group when there is none to share with. */
export function sharedAccess(mode: number, groupId: number | null): Access {
  return { mode: groupId === null ? mode & 0o700 : mode, groupId };
}

/** {@link setAccess}, where it is not as it should be. */
export async function ensureAccess(file: OpenFile, access: Access): Promise<void> {
  const { mode, groupId } = await file.status();
  const isExact = mode === access.mode && (access.groupId === null || groupId === access.groupId);
  if (!isExact) await setAccess(file, access);
}

/** What a writer of a machine's file says of it. */
export type NewFile = { readonly path: string; readonly isWritable: boolean };

/**
 * The folder of a machine that is being made, which nobody else knows yet. Every operation is a round trip to a thread, and
 * two hundred machines are made at once; so whoever writes a file hands it over while it is open still, and whatever is
 * left is opened anew by {@link finish}. Rejects with errno errors.
 */
export class NewFolder {
  readonly path: string;
  readonly #groupId: number | null;
  readonly #fileSystem: FileSystem;
  /** By name, whether it is a file that the guest writes. */
  readonly #sealed = new Map<string, boolean>();

  private constructor(path: string, { groupId, fileSystem }: NewFolderOptions) {
    this.path = path;
    this.#groupId = groupId;
    this.#fileSystem = fileSystem;
  }

  /** @throws EEXIST among others: what is there already is never taken */
  static async make(path: string, options: NewFolderOptions): Promise<NewFolder> {
    const { groupId, fileSystem } = options;
    await fileSystem.mkdir(path, 0o700);
    // Closed to others until all is there; but files made in it have its group from the first.
    if (groupId !== null) {
      await withOpenFile(
        path,
        { flags: OPEN_DIRECTORY, fileSystem },
        (directory) => setAccess(directory, { mode: 0o2700, groupId }),
      );
    }
    return new NewFolder(path, options);
  }

  /** The bits to make a file with. */
  modeFor(isWritable: boolean): number {
    return sharedAccess(isWritable ? 0o660 : 0o440, this.#groupId).mode;
  }

  /** Gives a file its access and makes its bytes durable. It must not change any more. */
  async seal(file: OpenFile, { path, isWritable }: NewFile): Promise<void> {
    await ensureAccess(file, { mode: this.modeFor(isWritable), groupId: this.#groupId });
    await file.sync();
    this.#sealed.set(basename(path), isWritable);
  }

  /** Makes all of it a machine's: gives every file its access, writes the record, and makes it durable. */
  async finish(record: MachineRecord): Promise<void> {
    const fileSystem = this.#fileSystem;
    const missing = new Set(record.writableFiles);
    for (const name of await fileSystem.readdir(this.path)) {
      const isWritable = record.writableFiles.includes(name);
      missing.delete(name);
      if (this.#sealed.get(name) === isWritable) continue;
      const path = join(this.path, name);
      await withOpenFile(path, { flags: READ_EXISTING, fileSystem }, async (file) => {
        if ((await file.status()).kind !== "file") {
          throw new TypeError(`build made "${name}", which is no regular file`);
        }
        await this.seal(file, { path, isWritable });
      });
    }
    if (missing.size > 0) {
      throw new TypeError(`build did not make ${[...missing].join(", ")}, which its record names`);
    }
    await this.#writeRecord(record);
    await withOpenFile(this.path, { flags: OPEN_DIRECTORY, fileSystem }, async (directory) => {
      await ensureAccess(directory, sharedAccess(0o750, this.#groupId));
      // Its bits, and the names of all files.
      await directory.sync();
    });
  }

  /** At its place at once: half of it is seen by nobody, as the folder has no name yet. */
  async #writeRecord(record: MachineRecord): Promise<void> {
    const bytes = new TextEncoder().encode(JSON.stringify(record, undefined, 2) + "\n");
    const access = sharedAccess(0o640, this.#groupId);
    const options = { flags: CREATE_NEW, mode: access.mode, fileSystem: this.#fileSystem };
    await withOpenFile(join(this.path, RECORD_NAME), options, async (file) => {
      await file.write(bytes, 0);
      await ensureAccess(file, access);
      await file.sync();
    });
  }
}

export type NewFolderOptions = { readonly groupId: number | null; readonly fileSystem: FileSystem };
