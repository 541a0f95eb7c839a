/**
 * @module host: what bootshim needs from libc and the file system, and nothing of what it is used for.
 *
 * May import `errors.ts` only. Invariants: `content/` and `machine/` reach the disk through {@link
 * FileSystem} alone, so a test can make every single operation fail or be the last one (but for the hint of
 * `read_ahead.ts`, which changes nothing and cannot fail); failures pass through
 * it as plain errno errors and become a ShimError where the action is known (`io_error.ts`).
 */
import {
  closeSync,
  constants,
  fchmod,
  fchown,
  fstatSync,
  fsync,
  ftruncate,
  lstatSync,
  type NoParamCallback,
  open,
  opendirSync,
  openSync,
  read,
  readSync,
  type Stats,
  write,
} from "node:fs";
import * as nodeFs from "node:fs/promises";
import { type DataExtent, findData } from "./data_extent.ts";
import { quickNames } from "./quick_names.ts";
import { quickFootprint, quickStatus } from "./quick_status.ts";
import { mainLoop } from "./main_loop.ts";
import { isLocked } from "./record_lock.ts";
import { reflink } from "./reflink.ts";

/**
 * Reads an existing file whose name is not trusted: follows no link, waits for no FIFO, takes no terminal.
 */
export const READ_EXISTING = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK |
  constants.O_NOCTTY;
/** Writes a file that does not exist yet. */
export const CREATE_NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
/** Opens the directory itself, never what a link points to. */
export const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

export type FileStatus = {
  readonly kind: "file" | "directory" | "symlink" | "other";
  readonly sizeBytes: number;
  /** Permission bits with set-id and sticky: `mode & 0o7777`. */
  readonly mode: number;
  readonly ownerId: number;
  readonly groupId: number;
  /** Both together tell whether two names, or a name and an open file, are one file. */
  readonly device: number;
  readonly inode: number;
  /** Of the last write, milliseconds since 1970; to be compared with itself only, because clocks jump. */
  readonly modifiedMs: number;
  /** Of the last change to content, name or access; milliseconds since 1970, whole seconds where the runtime rounds. */
  readonly changedMs: number;
  /** What it takes on disk: less than its size where there are holes. */
  readonly allocatedBytes: number;
};

/** As much of a status as costs nothing. */
export type SmallStatus = Pick<FileStatus, "kind" | "sizeBytes" | "mode" | "ownerId">;
/** What a path takes on disk, and since when. */
export type Footprint = Pick<FileStatus, "kind" | "modifiedMs" | "allocatedBytes">;
export type SmallFile = { readonly status: SmallStatus; readonly bytes: Uint8Array | null };

/** An open file or directory. Whoever opened it closes it. */
export interface OpenFile {
  /** The real descriptor, for calls that only libc has. */
  readonly fd: number;
  /** @returns bytes read into the start of `buffer`: fewer than its length, or 0, at the end of the file */
  read(buffer: Uint8Array, offsetBytes: number): Promise<number>;
  /** Writes all of `bytes`. */
  write(bytes: Uint8Array, offsetBytes: number): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  /** Becomes a copy of `source` that shares its blocks, whole; `isReflinkUnsupported` knows the errors of "not here". */
  cloneFrom(source: OpenFile): Promise<void>;
  /** The next part at or after `offsetBytes` that is no hole, or undefined when only a hole follows. */
  findData(offsetBytes: number): Promise<DataExtent | undefined>;
  chmod(mode: number): Promise<void>;
  chown(ownerId: number, groupId: number): Promise<void>;
  /** fsync(2). A failure is final: the kernel may have dropped the pages, so a second call proves nothing. */
  sync(): Promise<void>;
  /** Whether somebody holds a lock of fcntl(2) on any part of it, as QEMU does on its disks; a lock of ours counts, too. */
  isLocked(): Promise<boolean>;
  status(): Promise<FileStatus>;
  close(): Promise<void>;
}

/**
 * The file operations bootshim uses. Every one rejects with an errno error (`code` is `"ENOENT"` and so on).
 */
export interface FileSystem {
  /**
   * @param mode for a new file, before the umask; whoever needs an exact mode calls {@link OpenFile.chmod}
   */
  open(path: string, flags: number, mode?: number): Promise<OpenFile>;
  /** The path's own status: a link is not followed. */
  lstat(path: string): Promise<FileStatus>;
  /** As much of {@link lstat} as is asked of files by the ten thousand. */
  footprint(path: string): Promise<Footprint>;
  /**
   * A small file with its status, in one step that keeps the main loop: for documents by the thousand it is several times
   * quicker than opening, asking, reading and closing. Opens as {@link READ_EXISTING} does.
   *
   * @returns `bytes` null for what is no regular file, or has over `maxBytes`
   */
  readSmall(path: string, maxBytes: number): Promise<SmallFile>;
  readdir(path: string): Promise<string[]>;
  mkdir(path: string, mode: number): Promise<void>;
  rmdir(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a name; a link's target stays. */
  unlink(path: string): Promise<void>;
  /** Sets the path's own times of last access and change to now. */
  touch(path: string): Promise<void>;
  /** Bytes that this user can still write on the path's file system. */
  availableBytes(path: string): Promise<number>;
}

/** Takes a small step at once: the way to a thread and back takes many times as long as what it would do there. */
async function takeSmallStep<T>(step: () => T): Promise<T> {
  await mainLoop.share();
  return step();
}

export const nodeFileSystem: FileSystem = {
  open: async (path, flags, mode = 0o600) => {
    // What is there already is open at once; what is to be made may have to wait for the disk.
    if ((flags & constants.O_CREAT) === 0) {
      return await takeSmallStep(() => toOpenFile(openSync(path, flags)));
    }
    return toOpenFile(await called<number>((done) => open(path, flags, mode, done)));
  },
  lstat: (path) => takeSmallStep(() => toStatus(lstatSync(path))),
  footprint: (path) => takeSmallStep(() => quickFootprint(path) ?? toStatus(lstatSync(path))),
  readSmall: (path, maxBytes) => takeSmallStep(() => readSmallSync(path, maxBytes)),
  readdir: async (path) => {
    await mainLoop.share();
    // The runtime's other way sorts in the main loop, which takes twice as long as all of this.
    return await quickNames(path) ?? namesIn(path);
  },
  mkdir: async (path, mode) => {
    await nodeFs.mkdir(path, { mode });
  },
  rmdir: (path) => nodeFs.rmdir(path),
  rename: (from, to) => nodeFs.rename(from, to),
  unlink: (path) => nodeFs.unlink(path),
  touch: (path) => nodeFs.lutimes(path, new Date(), new Date()),
  availableBytes: async (path) => {
    const { bsize, bavail } = await nodeFs.statfs(path);
    return bsize * bavail;
  },
};

function namesIn(path: string): string[] {
  const directory = opendirSync(path);
  try {
    const names: string[] = [];
    for (let entry = directory.readSync(); entry; entry = directory.readSync()) names.push(entry.name);
    return names;
  } finally {
    directory.closeSync();
  }
}

function readSmallSync(path: string, maxBytes: number): SmallFile {
  const fd = openSync(path, READ_EXISTING);
  try {
    const status = quickStatus(fd) ?? toStatus(fstatSync(fd));
    if (status.kind !== "file" || status.sizeBytes > maxBytes) return { status, bytes: null };
    const buffer = new Uint8Array(status.sizeBytes);
    let filled = 0;
    while (filled < buffer.length) {
      const read = readSync(fd, buffer, filled, buffer.length - filled, filled);
      if (read === 0) break;
      filled += read;
    }
    return { status, bytes: buffer.subarray(0, filled) };
  } finally {
    closeSync(fd);
  }
}

function toStatus(stats: Stats): FileStatus {
  const kind = stats.isFile()
    ? "file"
    : stats.isDirectory()
    ? "directory"
    : stats.isSymbolicLink()
    ? "symlink"
    : "other";
  return {
    kind,
    sizeBytes: stats.size,
    mode: stats.mode & 0o7777,
    ownerId: stats.uid,
    groupId: stats.gid,
    device: stats.dev,
    inode: stats.ino,
    modifiedMs: stats.mtimeMs,
    changedMs: stats.ctimeMs,
    allocatedBytes: stats.blocks * 512,
  };
}

/** What a call of the runtime's gives its callback. */
function called<T>(call: (done: (error: Error | null, result: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => call((error, result) => error ? reject(error) : resolve(result)));
}

function done(call: (done: NoParamCallback) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => error ? reject(error) : resolve()));
}

/** Not by the runtime's own handle of an open file, which takes another descriptor for each step. */
function toOpenFile(opened: number): OpenFile {
  /** -1 once it is closed: the number may be another file's by then. */
  let current = opened;
  let stepsUnderWay = 0;
  let lastStep: PromiseWithResolvers<void> | undefined;

  /** While one is under way the descriptor stays this file's. */
  async function step<T>(take: (fd: number) => Promise<T>): Promise<T> {
    if (current === -1) throw Object.assign(new Error("the file is closed"), { code: "EBADF" });
    stepsUnderWay += 1;
    try {
      return await take(current);
    } finally {
      stepsUnderWay -= 1;
      if (stepsUnderWay === 0) lastStep?.resolve();
    }
  }

  return {
    fd: opened,
    read: async (buffer, offsetBytes) => {
      let filled = 0;
      while (filled < buffer.length) {
        const [from, left] = [filled, buffer.length - filled];
        const count = await step((fd) =>
          called<number>((done) => read(fd, buffer, from, left, offsetBytes + from, done))
        );
        if (count === 0) break;
        filled += count;
      }
      return filled;
    },
    write: async (bytes, offsetBytes) => {
      let written = 0;
      while (written < bytes.length) {
        const [from, left] = [written, bytes.length - written];
        written += await step((fd) =>
          called<number>((done) => write(fd, bytes, from, left, offsetBytes + from, done))
        );
      }
    },
    truncate: (sizeBytes) => step((fd) => done((done) => ftruncate(fd, sizeBytes, done))),
    cloneFrom: (source) => step((fd) => reflink(source.fd, fd)),
    findData: (offsetBytes) => step((fd) => findData(fd, offsetBytes)),
    chmod: (mode) => step((fd) => done((done) => fchmod(fd, mode, done))),
    chown: (ownerId, groupId) => step((fd) => done((done) => fchown(fd, ownerId, groupId, done))),
    sync: () => step((fd) => done((done) => fsync(fd, done))),
    isLocked: () => step(isLocked),
    status: () => step((fd) => takeSmallStep(() => toStatus(fstatSync(fd)))),
    close: async () => {
      if (current === -1) return;
      current = -1;
      if (stepsUnderWay > 0) await (lastStep = Promise.withResolvers()).promise;
      closeSync(opened);
    },
  };
}

export type OpenOptions = { readonly flags: number; readonly mode?: number; readonly fileSystem: FileSystem };

/**
 * Opens, runs `body`, closes in every case. A failing close fails the call too: it can be the first to tell
 * that data was lost.
 */
export async function withOpenFile<T>(
  path: string,
  options: OpenOptions,
  body: (file: OpenFile) => Promise<T>,
): Promise<T> {
  const file = await options.fileSystem.open(path, options.flags, options.mode);
  let result: T;
  try {
    result = await body(file);
  } catch (error) {
    // The body's failure is the cause; one of closing after it would only hide it.
    await file.close().catch(() => {});
    throw error;
  }
  await file.close();
  return result;
}

let userId: number | undefined;

/** The user whose files these are going to be. It stays the same: nothing here changes it. */
export function effectiveUserId(): number {
  if (!process.geteuid) throw new TypeError("process.geteuid is missing: not a POSIX system");
  return userId ??= process.geteuid();
}
