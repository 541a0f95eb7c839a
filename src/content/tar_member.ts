import { Buffer } from "node:buffer";
import { Header } from "tar/header";
import { Pax } from "tar/pax";
import { cannotUnpack } from "../boot/disk_packing.ts";
import type { ChunkReader } from "./chunk_reader.ts";
import type { DecodeOptions } from "./decoder_stream.ts";

/** Every part of a tar is a multiple of this. */
export const TAR_BLOCK_BYTES = 512;
/** Of a header that only carries a long name or attributes of the next one. */
const MAX_EXTENSION_BYTES = 1024 * 1024;
/** What an operating system writes beside a file for itself. */
const MAX_COMPANION_BYTES = 1024 * 1024;

const FILE_TYPES: ReadonlySet<string> = new Set(["File", "OldFile", "ContiguousFile"]);
const LONG_NAME_TYPES: ReadonlySet<string> = new Set(["NextFileHasLongPath", "OldGnuLongPath"]);
const PAX_TYPES: ReadonlySet<string> = new Set([
  "ExtendedHeader",
  "OldExtendedHeader",
  "GlobalExtendedHeader",
]);

/** The one file of a tar. */
export type TarMember = {
  readonly name: string;
  readonly sizeBytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
};

/**
 * Goes to the one regular file of a tar; folders, and the `._` files that macOS adds, do not count. That it is the only
 * one shows when its chunks have been read: they fail when anything else follows.
 *
 * @throws {ShimError} FORMAT_MISMATCH when it holds no file, a second one, or a link or a device: then it is a file
 *   tree; when its file is sparse; when it is truncated or corrupt; so do the chunks
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html "ustar Interchange Format"
 */
export async function openTarMember(reader: ChunkReader, options: DecodeOptions): Promise<TarMember> {
  const member = await nextFile(reader, options);
  if (!member && !options.isHead) {
    throw cannotUnpack("it is a tar that holds no file, must hold one", "publish the disk image itself");
  }
  // A head may end before it comes to the file.
  const { name, sizeBytes } = member ?? { name: "", sizeBytes: Number.MAX_SAFE_INTEGER };
  return { name, sizeBytes, chunks: contentOf(reader, { name, sizeBytes, ...options }) };
}

type Entry = { readonly name: string; readonly sizeBytes: number };

async function* contentOf(
  reader: ChunkReader,
  { name, sizeBytes, ...options }: DecodeOptions & Entry,
): AsyncGenerator<Uint8Array> {
  for (let leftBytes = sizeBytes; leftBytes > 0;) {
    const chunk = await reader.readSome(leftBytes);
    if (chunk.length === 0) return requireHead(options);
    leftBytes -= chunk.length;
    yield chunk;
  }
  if (!await isSkipped(reader, paddingAfter(sizeBytes))) return requireHead(options);
  const other = await nextFile(reader, options);
  if (other) throw fileTree(`${quote(other.name)} is in it beside ${quote(name)}`);
}

/** The next regular file, its content unread; undefined at the end of the archive, or of its head. */
async function nextFile(reader: ChunkReader, options: DecodeOptions): Promise<Entry | undefined> {
  for (let extension: Extension = {};;) {
    const block = await reader.read(TAR_BLOCK_BYTES);
    // Some writers leave the end mark out.
    if (block.length === 0) return undefined;
    if (block.length < TAR_BLOCK_BYTES) return requireHead(options);
    const header = decodeHeader(block);
    if (header.nullBlock) return await requireZeros(reader);
    if (!header.cksumValid) throw cannotUnpack("it is a tar with a broken header");
    const { type } = header;
    const sizeBytes = extension.sizeBytes ?? header.size ?? 0;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
      throw cannotUnpack("it is a tar with a broken header, a size is no number");
    }
    if (LONG_NAME_TYPES.has(type) || PAX_TYPES.has(type) || type === "NextFileHasLongLinkpath") {
      const payload = await readPayload(reader, sizeBytes);
      if (!payload) return requireHead(options);
      extension = { ...extension, ...readExtension(type, payload) };
      continue;
    }
    const name = extension.name ?? header.path ?? "";
    extension = {};
    if (type === "SparseFile") throw sparse(name);
    if (FILE_TYPES.has(type) && !isCompanion(name)) return { name, sizeBytes };
    if (!FILE_TYPES.has(type) && type !== "Directory") {
      throw fileTree(`${quote(name)} in it is a ${type}`);
    }
    if (sizeBytes > MAX_COMPANION_BYTES) {
      throw cannotUnpack(`it is a tar in which ${quote(name)} has ${sizeBytes} bytes`);
    }
    if (!await isSkipped(reader, sizeBytes + paddingAfter(sizeBytes))) return requireHead(options);
  }
}

/** What a header says about the entry after it, in place of that one's own words. */
type Extension = { readonly name?: string; readonly sizeBytes?: number };

function readExtension(type: string, payload: Buffer): Extension {
  const text = payload.toString("utf8");
  if (LONG_NAME_TYPES.has(type)) return { name: text.replace(/\0.*$/s, "") };
  if (!PAX_TYPES.has(type)) return {};
  const { path, size } = Pax.parse(text);
  if (/^\d+ GNU\.sparse\./m.test(text)) throw sparse(path ?? "");
  if (type === "GlobalExtendedHeader") return {};
  return {
    ...(path === undefined ? {} : { name: path }),
    ...(size === undefined ? {} : { sizeBytes: size }),
  };
}

/** @returns undefined where the archive ends before */
async function readPayload(reader: ChunkReader, sizeBytes: number): Promise<Buffer | undefined> {
  if (sizeBytes > MAX_EXTENSION_BYTES) {
    throw cannotUnpack(
      `it is a tar with a header of ${sizeBytes} bytes, limit is ${MAX_EXTENSION_BYTES} bytes`,
    );
  }
  const payload = await reader.read(sizeBytes);
  const isWhole = payload.length === sizeBytes && await isSkipped(reader, paddingAfter(sizeBytes));
  return isWhole ? toBuffer(payload) : undefined;
}

function decodeHeader(block: Uint8Array): Header {
  try {
    return new Header(toBuffer(block));
  } catch (error) {
    // A number of the wider form that no number of ours can hold.
    throw cannotUnpack("it is a tar with a broken header, a number is out of range", undefined, error);
  }
}

/** After the end mark: padding up to the size of a record. */
async function requireZeros(reader: ChunkReader): Promise<undefined> {
  for (;;) {
    const chunk = await reader.readSome(Infinity);
    if (chunk.length === 0) return undefined;
    if (chunk.some((byte) => byte !== 0)) throw cannotUnpack("it is a tar that goes on after its end mark");
  }
}

async function isSkipped(reader: ChunkReader, lengthBytes: number): Promise<boolean> {
  return await reader.skip(lengthBytes) === lengthBytes;
}

function paddingAfter(sizeBytes: number): number {
  return (TAR_BLOCK_BYTES - sizeBytes % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES;
}

function isCompanion(name: string): boolean {
  return name.split("/").at(-1)?.startsWith("._") ?? false;
}

function requireHead({ isHead }: DecodeOptions): undefined {
  if (!isHead) throw cannotUnpack("it is a tar that is truncated");
}

function sparse(name: string) {
  return cannotUnpack(
    `it is a tar in which ${quote(name)} is a sparse file, must be an ordinary one`,
    "make the tar without --sparse: the disk's zeros are compressed well, and are not stored here",
  );
}

function fileTree(why: string) {
  return cannotUnpack(
    `it is a tar of a file tree, ${why}, must hold exactly one file, the disk image`,
    "this is a container image's file tree, not a disk: publish a disk image",
  );
}

function quote(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
