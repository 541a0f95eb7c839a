import { Buffer } from "node:buffer";
import { Header } from "tar/header";
import { Pax } from "tar/pax";
import { type ErrorCode, ShimError } from "../errors.ts";
import type { OpenFile } from "../host/file_system.ts";

/** Where a regular file of an archive lies in it. */
export type ArchiveMember = { readonly startByte: number; readonly sizeBytes: number };

export type IndexArchiveOptions = {
  /** The archive's own size. */
  readonly sizeBytes: number;
  /** Completes "Cannot read …". */
  readonly title: string;
};

const BLOCK_BYTES = 512;
/** Room for tens of thousands of images; it bounds what an archive of empty files can cost. */
const MAX_MEMBERS = 100_000;
/** Of a header that only carries a long name or attributes of the next one. */
const MAX_EXTENSION_BYTES = 1024 * 1024;

/** The longest path that any file system takes. */
const MAX_NAME_LENGTH = 4096;

const FILE_TYPES: ReadonlySet<string> = new Set(["File", "OldFile", "ContiguousFile"]);
/** Headers that speak about the member after them. */
const EXTENSION_TYPES: ReadonlySet<string> = new Set([
  "ExtendedHeader",
  "OldExtendedHeader",
  "NextFileHasLongPath",
  "OldGnuLongPath",
  "NextFileHasLongLinkpath",
]);

/** How a file begins that `tar` would first have to unpack. */
const COMPRESSIONS: readonly (readonly [name: string, magic: readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ["bzip2", [0x42, 0x5a, 0x68]],
];

/**
 * Finds every member of a tar archive, reading headers only: one pass, whatever the members' sizes. Strict, because
 * an archive may come from anywhere: nothing in it but regular files and folders, each name once, none that leads out
 * of it, and all of their bytes there.
 *
 * @returns regular files by path, without a leading "./"
 * @throws {ShimError} FORMAT_MISMATCH when it is compressed; MANIFEST_INVALID when it is no tar archive;
 *   FORMAT_UNSAFE for links, devices, names that lead out or stand twice; CONTENT_SIZE_MISMATCH when it ends too
 *   early; LIMIT_EXCEEDED; errno errors pass
 * @see https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html "ustar Interchange Format"
 */
export async function indexArchive(
  file: OpenFile,
  options: IndexArchiveOptions,
): Promise<ReadonlyMap<string, ArchiveMember>> {
  const unsafe = (why: string) => refusal("FORMAT_UNSAFE", why, options);
  const folders = new Set<string>();
  const files = new Map<string, ArchiveMember>();
  for await (const { type, name, startByte, sizeBytes } of readHeaders(file, options)) {
    if (name.length > MAX_NAME_LENGTH) {
      throw refusal("LIMIT_EXCEEDED", `a name in it has over ${MAX_NAME_LENGTH} characters`, options);
    }
    const shown = JSON.stringify(name.slice(0, 200));
    const isFile = FILE_TYPES.has(type);
    if (!isFile && type !== "Directory") {
      throw unsafe(`${shown} is a ${type}, only files and folders may be in it`);
    }
    if (/^\/|(?:^|\/)\.\.(?:\/|$)/.test(name)) throw unsafe(`${shown} leads out of it`);
    const path = name.split("/").filter((word) => word !== "" && word !== ".").join("/");
    if (files.has(path) || (isFile && folders.has(path))) throw unsafe(`${shown} stands in it twice`);
    if (isFile) files.set(path, { startByte, sizeBytes });
    else folders.add(path);
  }
  return files;
}

type MemberHeader = ArchiveMember & { readonly type: string; readonly name: string };

/** Every member as its headers describe it, up to the archive's end mark. */
async function* readHeaders(file: OpenFile, options: IndexArchiveOptions): AsyncGenerator<MemberHeader> {
  let extension: Extension = {};
  for (let offsetBytes = 0, count = 0;; count++) {
    if (count === MAX_MEMBERS) throw refusal("LIMIT_EXCEEDED", `it has over ${MAX_MEMBERS} members`, options);
    const header = await readHeader(file, offsetBytes, options);
    if (header.nullBlock) return;
    const { type, path = "" } = header;
    const isExtension = EXTENSION_TYPES.has(type);
    const member = {
      startByte: offsetBytes + BLOCK_BYTES,
      sizeBytes: (isExtension ? undefined : extension.sizeBytes) ?? header.size ?? NaN,
    };
    requireThere(member, options);
    offsetBytes = member.startByte + Math.ceil(member.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    if (isExtension) {
      extension = { ...extension, ...await readExtension(file, { ...member, type }, options) };
    } else {
      yield { ...member, type, name: extension.path ?? path };
      extension = {};
    }
  }
}

async function readHeader(
  file: OpenFile,
  offsetBytes: number,
  options: IndexArchiveOptions,
): Promise<Header> {
  const block = Buffer.alloc(BLOCK_BYTES);
  const readBytes = await file.read(block, offsetBytes);
  if (readBytes < BLOCK_BYTES && offsetBytes > 0) {
    throw refusal(
      "CONTENT_SIZE_MISMATCH",
      `it ends after ${options.sizeBytes} bytes without an end mark`,
      options,
    );
  }
  let cause: unknown;
  try {
    const header = new Header(block);
    if (readBytes === BLOCK_BYTES && (header.cksumValid || header.nullBlock)) return header;
  } catch (error) {
    // A number of the wider form that no number of ours can hold.
    cause = error;
  }
  if (offsetBytes > 0) {
    throw refusal(
      "MANIFEST_INVALID",
      `there is no header of a member at byte ${offsetBytes}`,
      options,
      cause,
    );
  }
  const compression = COMPRESSIONS.find(([, magic]) => magic.every((byte, i) => block[i] === byte))?.[0];
  if (compression === undefined) throw refusal("MANIFEST_INVALID", "it is no tar archive", options, cause);
  throw refusal(
    "FORMAT_MISMATCH",
    `it is compressed by ${compression}, must be a plain tar archive`,
    options,
  );
}

function requireThere({ startByte, sizeBytes }: ArchiveMember, options: IndexArchiveOptions): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw refusal("MANIFEST_INVALID", `the member at byte ${startByte} states no size`, options);
  }
  const thereBytes = options.sizeBytes - startByte;
  if (sizeBytes <= thereBytes) return;
  throw refusal(
    "CONTENT_SIZE_MISMATCH",
    `the member at byte ${startByte} states ${sizeBytes} bytes, ${thereBytes} bytes are there`,
    options,
  );
}

/** What headers before a member say about it, in place of its own words. */
type Extension = { readonly path?: string; readonly sizeBytes?: number };

async function readExtension(
  file: OpenFile,
  { type, startByte, sizeBytes }: ArchiveMember & { readonly type: string },
  options: IndexArchiveOptions,
): Promise<Extension> {
  if (sizeBytes > MAX_EXTENSION_BYTES) {
    const why = `a header has ${sizeBytes} bytes, limit is ${MAX_EXTENSION_BYTES} bytes`;
    throw refusal("LIMIT_EXCEEDED", why, options);
  }
  // A link's target is of no interest: links are refused.
  if (type === "NextFileHasLongLinkpath") return {};
  const payload = Buffer.alloc(sizeBytes);
  await file.read(payload, startByte);
  const text = payload.toString("utf8");
  if (type !== "ExtendedHeader" && type !== "OldExtendedHeader") return { path: text.replace(/\0.*$/s, "") };
  const { path, size } = Pax.parse(text);
  return { ...(path === undefined ? {} : { path }), ...(size === undefined ? {} : { sizeBytes: size }) };
}

function refusal(
  code: ErrorCode,
  why: string,
  { title }: IndexArchiveOptions,
  cause?: unknown,
): ShimError {
  return new ShimError(code, `Cannot read ${title}: ${why}`, { cause });
}
