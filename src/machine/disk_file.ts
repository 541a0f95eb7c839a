import { constants } from "node:fs";
import type { DiskFormat } from "../boot/prepared_boot.ts";
import {
  type DiskLinks,
  type Overlay,
  OVERLAY_HEAD_BYTES,
  readDiskLinks,
  renderOverlay,
} from "../boot/qcow2_overlay.ts";
import { ShimError } from "../errors.ts";
import { copySparsely } from "../host/copy_sparsely.ts";
import {
  CREATE_NEW,
  type FileSystem,
  type OpenFile,
  READ_EXISTING,
  withOpenFile,
} from "../host/file_system.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { isReflinkUnsupported } from "../host/reflink.ts";
import type { NewFile, NewFolder } from "./seal_machine.ts";

type MakeOptions = { readonly fileSystem: FileSystem; readonly signal?: AbortSignal | undefined };
/** `folder`: of the machine that the file is made for; it is sealed then, and must not change any more. */
type WriteOptions = MakeOptions & { readonly folder?: NewFolder | undefined };
type CopyOptions = MakeOptions & {
  /** Whether the source may be a link: a file of the host's own, such as a firmware's, often is one. */
  readonly mayFollow?: boolean;
};

/**
 * Each of these makes one new file, the owner's alone, in a directory that nobody else knows yet; a failure may leave a
 * part of it there, which goes with the directory. What is not sealed is not synced, either: `MachineStore.create` does.
 */

/**
 * Makes `path` a copy of `from` that shares its blocks, as far as the file system can.
 *
 * @returns false when it cannot; there is no such file then
 * @throws {ShimError} NO_SPACE, BUSY, IO_ERROR
 */
export async function reflinkFile(from: string, path: string, { fileSystem }: MakeOptions): Promise<boolean> {
  const isShared = await withSource(from, path, {
    fileSystem,
    copy: async (source, target) => {
      try {
        await target.cloneFrom(source);
        return true;
      } catch (error) {
        if (isReflinkUnsupported(error)) return false;
        throw error;
      }
    },
  });
  if (!isShared) {
    await withIoErrors({ action: "make a disk", path }, () => fileSystem.unlink(path));
  }
  return isShared;
}

/**
 * Copies a file; zeros take no space in the copy.
 *
 * @throws {ShimError} CANCELLED, NO_SPACE, BUSY, IO_ERROR
 */
export async function copyFileSparsely(
  from: string,
  path: string,
  { fileSystem, signal, mayFollow = false }: CopyOptions,
): Promise<void> {
  await withSource(from, path, {
    fileSystem,
    mayFollow,
    copy: async (source, target) => {
      const { sizeBytes } = await source.status();
      await copySparsely(source, target, { sizeBytes, signal });
    },
  });
}

/** Grows a raw disk; what is new reads as zeros. @throws {ShimError} NO_SPACE, BUSY, IO_ERROR */
export async function growFile(path: string, sizeBytes: number, fileSystem: FileSystem): Promise<void> {
  await withIoErrors({ action: "grow a disk", path }, async () => {
    // It is ours and nobody else's yet, so the size read is the size there is.
    const flags = constants.O_RDWR | constants.O_NOFOLLOW;
    await withOpenFile(path, { flags, fileSystem }, async (file) => {
      if ((await file.status()).sizeBytes !== sizeBytes) await file.truncate(sizeBytes);
    });
  });
}

/** Writes a fresh overlay. @throws {ShimError} REQUEST_INVALID as `renderOverlay`; NO_SPACE, BUSY, IO_ERROR */
export async function writeOverlayFile(path: string, overlay: Overlay, options: WriteOptions): Promise<void> {
  const { parts, sizeBytes } = renderOverlay(overlay);
  const file = { path, action: "make an overlay", isWritable: true };
  await writeFile(file, options, async (file) => {
    for (const { offsetBytes, bytes } of parts) await file.write(bytes, offsetBytes);
    await file.truncate(sizeBytes);
  });
}

/** Writes a new small file that the guest does not write. @throws {ShimError} NO_SPACE, BUSY, IO_ERROR */
export async function writeNewFile(
  path: string,
  content: string | Uint8Array,
  options: WriteOptions,
): Promise<void> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  await writeFile({ path, action: "write", isWritable: false }, options, (file) => file.write(bytes, 0));
}

/** Makes a new file of zeros, which takes no space. @throws {ShimError} NO_SPACE, BUSY, IO_ERROR */
export async function writeEmptyFile(path: string, sizeBytes: number, options: WriteOptions): Promise<void> {
  const file = { path, action: "make a disk", isWritable: true };
  await writeFile(file, options, (file) => file.truncate(sizeBytes));
}

async function writeFile(
  { path, action, isWritable }: NewFile & { readonly action: string },
  { fileSystem, folder }: WriteOptions,
  fill: (file: OpenFile) => Promise<void>,
): Promise<void> {
  const mode = folder?.modeFor(isWritable) ?? 0o600;
  await withIoErrors({ action, path }, async () => {
    await withOpenFile(path, { flags: CREATE_NEW, mode, fileSystem }, async (file) => {
      await fill(file);
      await folder?.seal(file, { path, isWritable });
    });
  });
}

/** A machine's own disk, as its record has it. */
export type OwnDisk = DiskLinks & { readonly path: string; readonly format: DiskFormat };

/**
 * Checks that a disk still is what it was made as: for whoever is about to hand it to a guest again. Opens nothing that
 * it names, and looks at a raw disk's size only: what a guest writes into it means nothing.
 *
 * @throws {ShimError} CONTENT_CORRUPT when it is missing, cut off, no regular file, or its header says other things than
 *   the record; BUSY, IO_ERROR
 */
export async function verifyDiskFile(disk: OwnDisk, fileSystem: FileSystem): Promise<void> {
  const { path, format } = disk;
  const differing = await withIoErrors({ action: "read disk", path }, async () => {
    try {
      return await withOpenFile(path, { flags: READ_EXISTING, fileSystem }, async (file) => {
        const { kind, sizeBytes } = await file.status();
        if (kind !== "file") return "it is no regular file";
        if (format === "raw") return compareSize(sizeBytes, disk);
        const head = new Uint8Array(OVERLAY_HEAD_BYTES);
        return compareLinks(readDiskLinks(head.subarray(0, await file.read(head, 0))), disk);
      });
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return "it is missing";
      if (errnoOf(error) === "ELOOP") return "it is a symbolic link";
      // The parser does not know whose header it read.
      if (error instanceof ShimError && error.code === "CONTENT_CORRUPT") return error.message;
      throw error;
    }
  });
  if (differing === undefined) return;
  throw new ShimError("CONTENT_CORRUPT", `Cannot use disk "${path}": ${differing}`, {
    details: { path, remedy: "release the machine and prepare it again" },
  });
}

function compareSize(sizeBytes: number, { virtualSizeBytes }: OwnDisk): string | undefined {
  if (sizeBytes >= virtualSizeBytes) return undefined;
  return `it has ${sizeBytes} bytes, must have ${virtualSizeBytes}`;
}

function compareLinks(found: DiskLinks, expected: DiskLinks): string | undefined {
  const say = ({ backing, virtualSizeBytes }: DiskLinks) =>
    `${virtualSizeBytes} bytes, ${
      backing === null ? "no base" : `the base ${JSON.stringify(backing.path)} in ${backing.format}`
    }`;
  if (say(found) === say(expected)) return undefined;
  return `it says ${say(found)}; must say ${say(expected)}`;
}

type Copying<T> = Pick<CopyOptions, "fileSystem" | "mayFollow"> & {
  readonly copy: (source: OpenFile, target: OpenFile) => Promise<T>;
};

async function withSource<T>(
  from: string,
  path: string,
  { fileSystem, mayFollow, copy }: Copying<T>,
): Promise<T> {
  const flags = mayFollow ? READ_EXISTING & ~constants.O_NOFOLLOW : READ_EXISTING;
  return await withIoErrors(
    { action: `copy "${from}"`, path },
    () =>
      withOpenFile(
        from,
        { flags, fileSystem },
        (source) =>
          withOpenFile(
            path,
            { flags: CREATE_NEW, mode: 0o600, fileSystem },
            (target) => copy(source, target),
          ),
      ),
  );
}
