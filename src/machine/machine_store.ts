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
import { statusIfThere, syncDirectory, unlinkIfThere } from "../host/durable.ts";
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
import { reflinkFile } from "./disk_file.ts";
import type { Build, CreateRules, HeldMachine, HoldOptions } from "./held_machine.ts";
import { findLockedFile } from "./locked_file.ts";
import { DurableMachines } from "./durable_machines.ts";
import { isMachineId, type MachineId, parseMachineId } from "./machine_id.ts";
import { type MachineRecord, parseMachineRecord } from "./machine_record.ts";
import { invalidRecord, readRecordFile } from "./record_file.ts";
import { ensureAccess, NewFolder, RECORD_NAME, sharedAccess } from "./seal_machine.ts";

/** What a machine is called while it is being made or removed: `.ID.part`. Earlier versions had other such names. */
const LEFTOVER = /^\.(.+)\.(?:part|(?:new|old)-[0-9a-f]{16})$/;
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
  readonly #durable: DurableMachines;

  /** What machines' files are made through. */
  get fileSystem(): FileSystem {
    return this.#fileSystem;
  }

  private constructor(root: string, options: MachineStoreOptions) {
    this.#machines = join(root, "machines");
    this.#locks = lockDirectoryOf(root);
    this.#groupId = options.groupId;
    this.#fileSystem = options.fileSystem ?? nodeFileSystem;
    this.#durable = new DurableMachines(this.#machines, this.#fileSystem);
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
    const access = { ...sharedAccess(0o750, options.groupId), fileSystem: store.#fileSystem };
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
   * Runs `body` while nobody else can change or start this machine, in any process. Not to be nested for one id.
   *
   * @throws {ShimError} LOCK_TIMEOUT, CANCELLED, NO_SPACE, BUSY, IO_ERROR; what `body` throws passes
   */
  async hold<T>(
    id: MachineId,
    body: (held: HeldMachine) => Promise<T>,
    options: HoldOptions = {},
  ): Promise<T> {
    const lock = {
      mode: "exclusive",
      timeoutMs: options.timeoutMs ?? LOCK_TIMEOUT_MS,
      signal: options.signal,
      fileSystem: this.#fileSystem,
    } as const;
    const lockPath = join(this.#locks, `machine-${id}`);
    let isThere: boolean | undefined;
    const held: HeldMachine = {
      create: async (build, rules) => {
        const made = await this.#create(id, build, rules);
        isThere = true;
        return made;
      },
      add: (name, fill) => this.#add(id, { name, fill }),
      remove: async () => {
        isThere = undefined;
        await this.#remove(id);
      },
    };
    return await withIoErrors(
      { action: `change machine "${id}"`, path: this.directoryOf(id) },
      () =>
        withLock(lockPath, lock, async () => {
          try {
            return await body(held);
          } finally {
            if (!isThere) await this.#forgetLock(id, lockPath);
          }
        }),
    );
  }

  /**
   * The lock's file goes with its machine, or names would pile up. Only its holder does this; whoever waits for it finds
   * that the name is gone and takes the next file of that name. A failure costs a file, and nothing else.
   */
  async #forgetLock(id: MachineId, lockPath: string): Promise<void> {
    try {
      if (await this.#statusOf(id) === undefined) await this.#fileSystem.unlink(lockPath);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
  }

  /** {@link HeldMachine.create} under {@link hold}. */
  async create(
    id: MachineId,
    build: Build,
    options: HoldOptions = {},
  ): Promise<{ record: MachineRecord; created: boolean }> {
    return await this.hold(id, (held) => held.create(build), options);
  }

  /** {@link HeldMachine.remove} under {@link hold}. */
  async remove(id: MachineId, options: HoldOptions = {}): Promise<void> {
    await this.hold(id, (held) => held.remove(), options);
  }

  /**
   * Whether a disk made here can share the blocks of such a file: tried with it, for the doctor.
   *
   * @throws {ShimError} NO_SPACE, BUSY, IO_ERROR
   */
  async canReflink(from: string): Promise<boolean> {
    // As a machine that is being made: no sweep takes it from us, and should we be killed, the next one does.
    const id = parseMachineId(`probe-${randomBytes(8).toString("hex")}`);
    const directory = this.#partOf(id);
    const fileSystem = this.#fileSystem;
    const attempt = async () => {
      try {
        await fileSystem.mkdir(directory, 0o700);
        return await reflinkFile(from, join(directory, "disk"), { fileSystem });
      } finally {
        await removeTree(directory, fileSystem);
      }
    };
    const context = { action: "try a reflink", path: directory };
    return await this.hold(id, () => withIoErrors(context, attempt));
  }

  /** As `findLockedFile`, in a machine's directory. */
  async findLockedFile(id: MachineId): Promise<string | null> {
    return await findLockedFile(this.directoryOf(id), this.#fileSystem);
  }

  /**
   * Removes what killed processes left: directories that were being made or removed, and machines thrown away whose
   * process is gone. Whoever can take a machine's lock knows that nobody else has it; what is held is left alone.
   *
   * @returns the ids of machines that were removed
   * @throws {ShimError} NO_SPACE, BUSY, IO_ERROR
   */
  async sweep(): Promise<MachineId[]> {
    const removed: MachineId[] = [];
    const names = await withIoErrors(
      { action: "list machines", path: this.#machines },
      () => this.#fileSystem.readdir(this.#machines),
    );
    const thrownAway = (await this.list()).machines.filter((record) => record.isThrownAway).map(({ id }) =>
      id
    );
    const left = names.map((name) => LEFTOVER.exec(name)?.[1] ?? "").filter(isMachineId);
    for (const id of new Set([...left, ...thrownAway.filter(isMachineId)])) {
      try {
        await this.hold(id, async (held) => {
          for (const name of names) {
            if (LEFTOVER.exec(name)?.[1] === id) {
              await removeTree(join(this.#machines, name), this.#fileSystem);
            }
          }
          // It may have been released meanwhile.
          if (!thrownAway.includes(id) || await this.#statusOf(id) === undefined) return;
          await held.remove();
          removed.push(id);
        }, { timeoutMs: 0 });
      } catch (error) {
        if (!(error instanceof ShimError) || error.code !== "LOCK_TIMEOUT") throw error;
      }
    }
    return removed;
  }

  async #create(
    id: MachineId,
    build: Build,
    { isUuidGiven = false }: CreateRules = {},
  ): Promise<{ record: MachineRecord; created: boolean }> {
    const status = await this.#statusOf(id);
    if (status !== undefined) {
      if (status.kind !== "directory") throw this.#conflict(id);
      const record = await this.#readForCreate(id);
      await this.#durable.settle(this.directoryOf(id), status);
      return { record, created: false };
    }
    const directory = this.#partOf(id);
    try {
      const folder = await this.#makeFolder(directory);
      const record = parseMachineRecord(await build(directory, folder), `the record of machine "${id}"`);
      if (record.id !== id) throw new TypeError(`build gave a record of "${record.id}" for machine "${id}"`);
      await folder.finish(record);
      const publish = () => this.#fileSystem.rename(directory, this.directoryOf(id));
      await (isUuidGiven ? this.#withOwnUuid(record, publish) : publish());
      await this.#durable.settle(this.directoryOf(id));
      return { record, created: true };
    } catch (error) {
      // The first failure is the one to tell; what even now stays behind is swept by the next call for this id.
      await removeTree(directory, this.#fileSystem).catch(() => {});
      throw error;
    }
  }

  /** What is there was left by a killed call for this id: the living one has its lock, and is us. */
  async #makeFolder(directory: string): Promise<NewFolder> {
    const options = { groupId: this.#groupId, fileSystem: this.#fileSystem };
    try {
      return await NewFolder.make(directory, options);
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      await removeTree(directory, this.#fileSystem);
      return await NewFolder.make(directory, options);
    }
  }

  /** {@link HeldMachine.add} */
  async #add(
    id: MachineId,
    { name, fill }: { readonly name: string; readonly fill: (path: string) => Promise<void> },
  ): Promise<void> {
    if (await this.#statusOf(id) === undefined) throw notFound(id);
    const fileSystem = this.#fileSystem;
    const directory = this.directoryOf(id);
    if (await statusIfThere(join(directory, name), fileSystem) !== undefined) return;
    // A fixed name: whoever holds the machine replaces what a killed process left.
    const partial = join(directory, `.${name}.new`);
    await unlinkIfThere(partial, fileSystem);
    try {
      await fill(partial);
      await withOpenFile(partial, { flags: READ_EXISTING, fileSystem }, async (file) => {
        await ensureAccess(file, sharedAccess(0o440, this.#groupId));
        await file.sync();
      });
      await fileSystem.rename(partial, join(directory, name));
    } catch (error) {
      await unlinkIfThere(partial, fileSystem).catch(() => {});
      throw error;
    }
    await syncDirectory(directory, fileSystem);
  }

  /** Two machines that are made at once see each other, because each looks and appears in one step. */
  async #withOwnUuid(record: MachineRecord, publish: () => Promise<void>): Promise<void> {
    const lock = { mode: "exclusive", timeoutMs: LOCK_TIMEOUT_MS, fileSystem: this.#fileSystem } as const;
    await withLock(join(this.#locks, "machine-uuids"), lock, async () => {
      const other = (await this.list()).machines.find(({ uuid }) => uuid === record.uuid);
      if (other) {
        throw new ShimError(
          "CONFLICT",
          `Cannot make machine "${record.id}": machine "${other.id}" has its UUID ${record.uuid}`,
          { details: { id: record.id, other: other.id, remedy: "leave the UUID to us, or choose another" } },
        );
      }
      await publish();
    });
  }

  /** @throws {ShimError} MACHINE_NOT_FOUND; CACHE_LAYOUT_INVALID; BUSY, IO_ERROR */
  async read(id: MachineId): Promise<MachineRecord> {
    const path = join(this.directoryOf(id), RECORD_NAME);
    return await withIoErrors({ action: `read machine "${id}"`, path }, async () => {
      const status = await this.#statusOf(id);
      if (status === undefined) throw notFound(id);
      if (status.kind !== "directory") throw invalidRecord(path, "its directory is a link or a file");
      return await readRecordFile(path, { id, fileSystem: this.#fileSystem });
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

  async #remove(id: MachineId): Promise<void> {
    const part = this.#partOf(id);
    await removeTree(part, this.#fileSystem);
    const status = await this.#statusOf(id);
    if (status === undefined) throw notFound(id);
    if (status.kind !== "directory") throw this.#conflict(id);
    await this.#fileSystem.rename(this.directoryOf(id), part);
    await this.#durable.sync();
    await removeTree(part, this.#fileSystem);
  }

  /** Where a machine lies while it is being made or removed: its own, as long as its lock is held. */
  #partOf(id: MachineId): string {
    return join(this.#machines, `.${id}.part`);
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
