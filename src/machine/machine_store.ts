/**
 * @module machine: the prepared machines under ROOT/machines, one directory each with record, disks, NVRAM,
 *   domain XML and console log.
 *
 * May import `errors.ts`, `image/`, `boot/`, `hypervisor/` types and `host/`. Invariants: machines/ID is
 * complete and durable from its first moment on, or absent; whoever changes it holds locks/machine-ID; what
 * is removed is only ever inside it, never behind a link.
 */
import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { ShimError } from "../errors.ts";
import { type Access, setAccess, syncDirectory, writeDurably } from "../host/durable.ts";
import {
  type FileStatus,
  type FileSystem,
  nodeFileSystem,
  READ_EXISTING,
  withOpenFile,
} from "../host/file_system.ts";
import { withLock } from "../host/flock.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { ensurePrivateDirectory } from "../host/private_directory.ts";
import { removeTree } from "../host/remove_tree.ts";
import { lockDirectoryOf, openRootDirectory } from "../host/root_directory.ts";
import { isMachineId, type MachineId } from "./machine_id.ts";
import { type MachineRecord, parseMachineRecord } from "./machine_record.ts";

const RECORD_NAME = "machine.json";
/** A record holds a definition and a few disks; this bounds what a damaged one can cost. */
const MAX_RECORD_BYTES = 1024 * 1024;
/** Building may copy a disk, and the second caller for one id waits for the first. */
const LOCK_TIMEOUT_MS = 300_000;

export type MachineStoreOptions = {
  readonly rootDirectory: string;
  /** Whose members may open disks and NVRAM (`qemuGroupId()`); null: nobody but this user. */
  readonly groupId: number | null;
  readonly fileSystem?: FileSystem;
};

export type MachineList = {
  readonly machines: readonly MachineRecord[];
  /**
   * Directories that look like machines and cannot be read, so that one damaged machine does not hide the
   * others.
   */
  readonly unreadable: readonly { readonly id: MachineId; readonly error: ShimError }[];
};

export class MachineStore {
  readonly #machines: string;
  readonly #locks: string;
  readonly #groupId: number | null;
  readonly #fileSystem: FileSystem;

  /** What machines' files are made through. */
  get fileSystem(): FileSystem {
    return this.#fileSystem;
  }

  private constructor(root: string, options: MachineStoreOptions) {
    this.#machines = join(root, "machines");
    this.#locks = lockDirectoryOf(root);
    this.#groupId = options.groupId;
    this.#fileSystem = options.fileSystem ?? nodeFileSystem;
  }

  /**
   * Makes or takes ROOT/machines and ROOT/locks.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID when a directory is a link, is another user's or can be written
   *   by others, or when the root holds other files; NO_SPACE, BUSY, IO_ERROR
   */
  static async open(options: MachineStoreOptions): Promise<MachineStore> {
    const root = resolve(options.rootDirectory);
    const store = new MachineStore(root, options);
    const access = { ...store.#shared(0o750), fileSystem: store.#fileSystem };
    await openRootDirectory(root, access);
    await ensurePrivateDirectory(store.#machines, access);
    return store;
  }

  /**
   * Where a machine lies or would lie, absolute: known before it is built, because its parts name each other.
   */
  directoryOf(id: MachineId): string {
    return join(this.#machines, id);
  }

  /**
   * Makes a machine, once: `build` fills a directory of its own with regular files and gives the record,
   * which names them by the paths they will have under {@link directoryOf}. They become group QEMU's,
   * read-only where the record says so, and are fsynced; then the directory gets its name. A failure or crash
   * at any point leaves no machine.
   *
   * @returns the record, and whether this call made it; one that exists is the caller's to compare
   * @throws {ShimError} CONFLICT when something that is no machine is in the place; CACHE_LAYOUT_INVALID when
   *   the existing record cannot be read; LOCK_TIMEOUT, CANCELLED, NO_SPACE, BUSY, IO_ERROR; what `build`
   *   throws passes
   */
  async create(
    id: MachineId,
    build: (directory: string) => Promise<MachineRecord>,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<{ record: MachineRecord; created: boolean }> {
    return await this.#locked(id, options.signal, async () => {
      await this.#sweep(id);
      const status = await this.#statusOf(id);
      if (status !== undefined) {
        if (status.kind !== "directory") throw this.#conflict(id);
        return { record: await this.#readForCreate(id), created: false };
      }
      const directory = join(this.#machines, `.${id}.new-${randomBytes(8).toString("hex")}`);
      try {
        await this.#fileSystem.mkdir(directory, 0o700);
        const record = parseMachineRecord(await build(directory), `the record of machine "${id}"`);
        if (record.id !== id) {
          throw new TypeError(`build gave a record of "${record.id}" for machine "${id}"`);
        }
        await this.#seal(directory, record);
        await this.#fileSystem.rename(directory, this.directoryOf(id));
        await syncDirectory(this.#machines, this.#fileSystem);
        return { record, created: true };
      } catch (error) {
        // The first failure is the one to tell; what even now stays behind is swept by the next call for this
        // id.
        await removeTree(directory, this.#fileSystem).catch(() => {});
        throw error;
      }
    });
  }

  /** @throws {ShimError} MACHINE_NOT_FOUND; CACHE_LAYOUT_INVALID; BUSY, IO_ERROR */
  async read(id: MachineId): Promise<MachineRecord> {
    const path = join(this.directoryOf(id), RECORD_NAME);
    return await withIoErrors({ action: `read machine "${id}"`, path }, async () => {
      const status = await this.#statusOf(id);
      if (status === undefined) throw notFound(id);
      if (status.kind !== "directory") throw invalidRecord(path, "its directory is a link or a file");
      let bytes: Uint8Array;
      try {
        bytes = await readRecordFile(path, this.#fileSystem);
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
    });
  }

  /**
   * All machines, by id. Names that no machine can have are somebody else's and are left out.
   *
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async list(): Promise<MachineList> {
    const names = await withIoErrors(
      { action: "list machines", path: this.#machines },
      () => this.#fileSystem.readdir(this.#machines),
    );
    const machines: MachineRecord[] = [];
    const unreadable: { id: MachineId; error: ShimError }[] = [];
    for (const id of names.filter(isMachineId).sort()) {
      try {
        machines.push(await this.read(id));
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        // Removed since the directory was listed.
        if (error.code !== "MACHINE_NOT_FOUND") unreadable.push({ id, error });
      }
    }
    return { machines, unreadable };
  }

  /**
   * Removes a machine with everything in its directory; what links in there point to stays. After a crash the
   * machine is there whole or gone, and its remains go with the next {@link create} or remove of this id.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND; CONFLICT when what is in its place is no directory; LOCK_TIMEOUT,
   *   CANCELLED, BUSY, IO_ERROR
   */
  async remove(id: MachineId, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    await this.#locked(id, options.signal, async () => {
      await this.#sweep(id);
      const status = await this.#statusOf(id);
      if (status === undefined) throw notFound(id);
      if (status.kind !== "directory") throw this.#conflict(id);
      const away = join(this.#machines, `.${id}.old-${randomBytes(8).toString("hex")}`);
      await this.#fileSystem.rename(this.directoryOf(id), away);
      await syncDirectory(this.#machines, this.#fileSystem);
      await removeTree(away, this.#fileSystem);
    });
  }

  async #locked<T>(id: MachineId, signal: AbortSignal | undefined, body: () => Promise<T>): Promise<T> {
    const lock = {
      mode: "exclusive",
      timeoutMs: LOCK_TIMEOUT_MS,
      signal,
      fileSystem: this.#fileSystem,
    } as const;
    return await withIoErrors(
      { action: `change machine "${id}"`, path: this.directoryOf(id) },
      () => withLock(join(this.#locks, `machine-${id}`), lock, body),
    );
  }

  /**
   * Removes what killed calls for this id left. Their owners are dead: the living one has its lock, and is
   * us.
   */
  async #sweep(id: MachineId): Promise<void> {
    for (const name of await this.#fileSystem.readdir(this.#machines)) {
      const suffix = name.startsWith(`.${id}.`) ? name.slice(id.length + 2) : "";
      if (/^(?:new|old)-[0-9a-f]{16}$/.test(suffix)) {
        await removeTree(join(this.#machines, name), this.#fileSystem);
      }
    }
  }

  async #statusOf(id: MachineId): Promise<FileStatus | undefined> {
    try {
      return await this.#fileSystem.lstat(this.directoryOf(id));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** A directory without a record was not made by {@link create}: it is foreign, and stays untouched. */
  async #readForCreate(id: MachineId): Promise<MachineRecord> {
    try {
      await this.#fileSystem.lstat(join(this.directoryOf(id), RECORD_NAME));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") throw this.#conflict(id);
      throw error;
    }
    return await this.read(id);
  }

  /** Writes the record, gives every file its access and makes all of it durable. */
  async #seal(directory: string, record: MachineRecord): Promise<void> {
    const fileSystem = this.#fileSystem;
    const missing = new Set(record.writableFiles);
    for (const name of await fileSystem.readdir(directory)) {
      const mode = record.writableFiles.includes(name) ? 0o660 : 0o440;
      missing.delete(name);
      await withOpenFile(join(directory, name), { flags: READ_EXISTING, fileSystem }, async (file) => {
        if ((await file.status()).kind !== "file") {
          throw new TypeError(`build made "${name}", which is no regular file`);
        }
        await setAccess(file, this.#shared(mode));
        await file.sync();
      });
    }
    if (missing.size > 0) {
      throw new TypeError(`build did not make ${[...missing].join(", ")}, which its record names`);
    }
    await ensurePrivateDirectory(directory, { ...this.#shared(0o750), fileSystem });
    const bytes = new TextEncoder().encode(JSON.stringify(record, undefined, 2) + "\n");
    // Syncs the directory as well: its bits, and the names of all files made before.
    await writeDurably(join(directory, RECORD_NAME), bytes, { ...this.#shared(0o640), fileSystem });
  }

  /** The bits of a file or directory, without those of a group when there is none to share with. */
  #shared(mode: number): Access {
    return { mode: this.#groupId === null ? mode & 0o700 : mode, groupId: this.#groupId };
  }

  #conflict(id: MachineId): ShimError {
    const path = this.directoryOf(id);
    return new ShimError(
      "CONFLICT",
      `Cannot use machine id "${id}": "${path}" is there and is no machine of bootshim`,
      {
        details: { remedy: "look what it is; move it away, or choose another id", path },
      },
    );
  }
}

function notFound(id: MachineId): ShimError {
  return new ShimError("MACHINE_NOT_FOUND", `Cannot find machine "${id}": there is none by that id`, {
    details: { id },
  });
}

function invalidRecord(path: string, why: string): ShimError {
  return new ShimError("CACHE_LAYOUT_INVALID", `Cannot use machine record "${path}": ${why}`, {
    details: { remedy: "release the machine and prepare it again", path },
  });
}

async function readRecordFile(path: string, fileSystem: FileSystem): Promise<Uint8Array> {
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
