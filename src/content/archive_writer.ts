import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { basename, dirname, join, resolve } from "node:path";
import { Header } from "tar/header";
import { Pax } from "tar/pax";
import { ShimError } from "../errors.ts";
import { syncDirectory, unlinkIfThere } from "../host/durable.ts";
import {
  CREATE_NEW,
  type FileSystem,
  nodeFileSystem,
  type OpenFile,
  withOpenFile,
} from "../host/file_system.ts";
import { requireFreeSpace } from "../host/free_space.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { formatImageIndex } from "../image/image_index.ts";
import { type LayoutContent, OCI_LAYOUT_BYTES, type WriteLayoutOptions } from "./layout_writer.ts";
import { verifiedChunks } from "./verified_chunks.ts";

const BLOCK_BYTES = 512;
/** Before the umask, as for any file that a program makes for its user. */
const ARCHIVE_MODE = 0o666;

/**
 * Writes an image layout as a tar archive. The same content gives the same bytes, wherever and whenever: members stand
 * in order of their names, without times or owners. When this resolves the archive is whole and durable, in place of a
 * file that was there before; when it rejects, what was there is untouched.
 *
 * @throws {ShimError} REQUEST_INVALID when something other than a regular file is in the way; CONTENT_SIZE_MISMATCH,
 *   CONTENT_DIGEST_MISMATCH when a blob is not what its descriptor says; NO_SPACE, CANCELLED, BUSY, IO_ERROR
 */
export async function writeArchive(
  path: string,
  content: LayoutContent,
  options: WriteLayoutOptions = {},
): Promise<void> {
  const target = resolve(path);
  const { fileSystem = nodeFileSystem } = options;
  const directory = dirname(target);
  const members = membersOf(content, options);
  await withIoErrors({ action: "write image archive", path: target }, async () => {
    await requireReplaceable(target, fileSystem);
    const sizeBytes = members.reduce((sum, member) => sum + member.sizeBytes, 0);
    await requireFreeSpace(directory, { sizeBytes, action: `write image archive "${target}"`, fileSystem });
    const temporaryPath = join(directory, `.${basename(target)}.${randomBytes(8).toString("hex")}`);
    try {
      await withOpenFile(
        temporaryPath,
        { flags: CREATE_NEW, mode: ARCHIVE_MODE, fileSystem },
        async (file) => {
          await writeMembers(file, members, options.signal);
          await file.sync();
        },
      );
      await fileSystem.rename(temporaryPath, target);
    } catch (error) {
      // The first failure is the one to tell; a random name does no harm.
      await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
      throw error;
    }
    await syncDirectory(directory, fileSystem);
  });
}

async function requireReplaceable(path: string, fileSystem: FileSystem): Promise<void> {
  try {
    const { kind } = await fileSystem.lstat(path);
    if (kind === "file") return;
    const what = kind === "other" ? "special file" : kind;
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot write image archive "${path}": it is a ${what}, must be a regular file or nothing`,
      { details: { remedy: "name another file", path } },
    );
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

type Member = {
  readonly name: string;
  readonly sizeBytes: number;
  readonly open: () => Promise<AsyncIterable<Uint8Array>>;
};

function membersOf(content: LayoutContent, { onProgress }: WriteLayoutOptions): Member[] {
  const document = (name: string, bytes: Uint8Array): Member => ({
    name,
    sizeBytes: bytes.length,
    open: () => Promise.resolve(ReadableStream.from([bytes])),
  });
  const blob = (descriptor: Descriptor): Member => ({
    name: `blobs/${digestAlgorithm(descriptor.digest)}/${digestEncoded(descriptor.digest)}`,
    sizeBytes: descriptor.sizeBytes,
    open: async () =>
      counted(
        verifiedChunks(descriptor, await content.open(descriptor)),
        (doneBytes) => onProgress?.(descriptor.digest, doneBytes),
      ),
  });
  return [
    document("oci-layout", OCI_LAYOUT_BYTES),
    document("index.json", formatImageIndex({ entries: content.entries, annotations: {} })),
    ...content.blobs.map(blob),
  ].sort((a, b) => a.name < b.name ? -1 : 1);
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  tell: (doneBytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let doneBytes = 0;
  for await (const chunk of chunks) {
    yield chunk;
    doneBytes += chunk.length;
    tell(doneBytes);
  }
}

async function writeMembers(
  file: OpenFile,
  members: readonly Member[],
  signal: AbortSignal | undefined,
): Promise<void> {
  let offsetBytes = 0;
  const write = async (bytes: Uint8Array) => {
    await file.write(bytes, offsetBytes);
    offsetBytes += bytes.length;
  };
  for (const member of members) {
    await write(headerOf(member));
    for await (const chunk of await member.open()) {
      if (signal?.aborted) {
        throw new ShimError("CANCELLED", "Cannot write image archive: cancelled", { cause: signal.reason });
      }
      await write(chunk);
    }
    await write(new Uint8Array((BLOCK_BYTES - offsetBytes % BLOCK_BYTES) % BLOCK_BYTES));
  }
  // The end of an archive.
  await write(new Uint8Array(2 * BLOCK_BYTES));
}

/** One block, or three when name or size do not fit into one. */
function headerOf({ name, sizeBytes }: Member): Uint8Array {
  const header = new Header({
    path: name,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: sizeBytes,
    mtime: new Date(0),
    type: "File",
  });
  const needsPax = header.encode();
  const block = header.block ?? Buffer.alloc(0);
  return needsPax ? Buffer.concat([new Pax({ path: name, size: sizeBytes }).encode(), block]) : block;
}
