import { join } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { type Access, writeDurably } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { withLock } from "../host/flock.ts";
import { errnoOf } from "../host/io_error.ts";
import { ensurePrivateDirectory } from "../host/private_directory.ts";
import { lockDirectoryOf, openRootDirectory } from "../host/root_directory.ts";
import { type Digest, DIGEST_ALGORITHMS, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { readLayoutFile } from "./layout_file.ts";

/**
 * How long to wait for another bootshim: an index update takes milliseconds, so this is a host in trouble.
 */
export const LOCK_TIMEOUT_MS = 30_000;

/**
 * The one version there is. @see
 * https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#oci-layout-file
 */
const LAYOUT_VERSION = "1.0.0";
const ociLayoutJson = z.object({ imageLayoutVersion: z.string() });
const MAX_OCI_LAYOUT_BYTES = 64 * 1024;

/** Of the files that are bootshim's own. Whatever changes their meaning raises it. */
const ROOT_VERSION = 1;
const versionJson = z.object({ schemaVersion: z.int() });

/** Absolute paths of everything the content store owns. */
export type StorePaths = {
  readonly root: string;
  readonly images: string;
  readonly ociLayout: string;
  readonly index: string;
  readonly indexTemporary: string;
  readonly blobs: string;
  readonly ingest: string;
  /** A record for each name in the index. */
  readonly references: string;
  /** What operations under way need. */
  readonly leases: string;
  /** Damaged blobs, out of everybody's way. */
  readonly quarantine: string;
  /** What was found out about blobs. */
  readonly verdicts: string;
  /** Held shared while a lease or a name changes, exclusively by the collector. */
  readonly collectLock: string;
  /** Which version of bootshim's own files this is. */
  readonly version: string;
  readonly indexLock: string;
  /**
   * Held shared by whoever writes files of random names in `ingest/`: who gets it exclusively knows that those are
   * left over. Transfers of blobs have locks of their own.
   */
  readonly ingestLock: string;
};

export function storePaths(root: string): StorePaths {
  const images = join(root, "images");
  const locks = lockDirectoryOf(root);
  return {
    root,
    images,
    ociLayout: join(images, "oci-layout"),
    index: join(images, "index.json"),
    indexTemporary: join(images, ".index.json.new"),
    blobs: join(images, "blobs"),
    ingest: join(root, "ingest"),
    references: join(root, "references"),
    leases: join(root, "leases"),
    quarantine: join(root, "quarantine"),
    verdicts: join(root, "verdicts"),
    collectLock: join(locks, "collect"),
    version: join(root, "version.json"),
    indexLock: join(locks, "index"),
    ingestLock: join(locks, "ingest"),
  };
}

/** Where a blob of any layout lies under its `blobs/`. A checked digest is a safe path. */
export function blobPathIn(blobs: string, digest: Digest): string {
  // Not joined: it is asked for by the ten thousand, and none of its parts needs cleaning.
  return `${blobs}/${digestAlgorithm(digest)}/${digestEncoded(digest)}`;
}

/** Bits for files of the layout that only bootshim reads; images' blobs are for QEMU as well. */
export const PRIVATE_FILE: Access = { mode: 0o600, groupId: null };

export type StoreOptions = {
  /** Whose members may read blobs: QEMU's own group, or null for nobody but this user. */
  readonly groupId: number | null;
  readonly fileSystem: FileSystem;
};

/**
 * Makes or takes the directories and the layout's files. Idempotent; existing blobs are never touched. A damaged or
 * missing `oci-layout` is written anew when our own records tell that the layout is ours; `index.json` is then made
 * anew by whoever reads it (`reference_index.ts`).
 *
 * @returns whether the cache was made by a bootshim that kept no records of images
 * @throws {ShimError} CACHE_LAYOUT_INVALID for an unsafe directory, a newer version, or blobs without records whose
 *   `oci-layout` or `index.json` is missing; LOCK_TIMEOUT; errno errors pass
 */
export async function openLayout(
  paths: StorePaths,
  { groupId, fileSystem }: StoreOptions,
): Promise<{ needsRecords: boolean }> {
  const shared: Access = { mode: groupId === null ? 0o700 : 0o750, groupId };
  const { root, images, blobs, ingest, references, leases, quarantine, verdicts } = paths;
  await openRootDirectory(root, { ...shared, fileSystem });
  const version = await readVersion(paths, fileSystem);
  for (const path of [images, blobs, join(blobs, "sha256"), join(blobs, "sha512")]) {
    await ensurePrivateDirectory(path, { ...shared, fileSystem });
  }
  for (const path of [ingest, references, leases, quarantine, verdicts]) {
    await ensurePrivateDirectory(path, { mode: 0o700, groupId: null, fileSystem });
  }
  if (version !== undefined && await isComplete(paths, fileSystem)) return { needsRecords: false };
  const lock = { mode: "exclusive", timeoutMs: LOCK_TIMEOUT_MS, fileSystem } as const;
  return await withLock(paths.indexLock, lock, async () => {
    // Another process may have completed it while this one waited.
    if (!await isComplete(paths, fileSystem)) await completeLayout(paths, fileSystem);
    return { needsRecords: await readVersion(paths, fileSystem) === undefined };
  });
}

/** Says that the root is of this version; the last step of making it. */
export async function writeVersion(paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: ROOT_VERSION }));
  await writeDurably(paths.version, bytes, { ...PRIVATE_FILE, fileSystem });
}

/** @throws {ShimError} CACHE_LAYOUT_INVALID for a version that is not this one: nothing in it may be guessed at */
async function readVersion(paths: StorePaths, fileSystem: FileSystem): Promise<number | undefined> {
  const { version: path } = paths;
  const invalid = (why: string, cause?: unknown) => layoutInvalid(path, why, cause);
  const options = { schema: versionJson, maxBytes: MAX_OCI_LAYOUT_BYTES, invalid, fileSystem };
  const found = (await readLayoutFile(path, options))?.schemaVersion;
  if (found === undefined || found === ROOT_VERSION) return found;
  throw new ShimError(
    "CACHE_LAYOUT_INVALID",
    `Cannot use cache "${paths.root}": its version is ${found}, this bootshim knows version ${ROOT_VERSION}`,
    { details: { remedy: "use the bootshim that wrote it, or choose another --root", path } },
  );
}

async function completeLayout(paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  const hasRecords = (await fileSystem.readdir(paths.references)).length > 0;
  if (!hasRecords) await requireEmpty(paths, fileSystem);
  await writeLayoutFile(paths, {
    path: paths.ociLayout,
    content: { imageLayoutVersion: LAYOUT_VERSION },
    fileSystem,
  });
  // With records, an index that is missing is made from them: an empty one would give all blobs up.
  if (hasRecords) return;
  await writeLayoutFile(paths, {
    path: paths.index,
    content: { schemaVersion: 2, manifests: [] },
    fileSystem,
  });
}

async function writeLayoutFile(
  paths: StorePaths,
  { path, content, fileSystem }: { path: string; content: unknown; fileSystem: FileSystem },
): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify(content));
  await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem, temporaryPath: paths.indexTemporary });
}

/**
 * Whether both files are there; one that is damaged is not, where our own records can replace it.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID when `oci-layout` says another version: a newer bootshim's cache
 * is not ours
 */
async function isComplete(paths: StorePaths, fileSystem: FileSystem): Promise<boolean> {
  const invalid = (why: string, cause?: unknown) => layoutInvalid(paths.ociLayout, why, cause);
  const options = { schema: ociLayoutJson, maxBytes: MAX_OCI_LAYOUT_BYTES, invalid, fileSystem };
  let layout: z.infer<typeof ociLayoutJson> | undefined;
  try {
    layout = await readLayoutFile(paths.ociLayout, options);
  } catch (error) {
    const isOurs = error instanceof ShimError && (await fileSystem.readdir(paths.references)).length > 0;
    if (!isOurs) throw error;
  }
  if (layout === undefined) return false;
  const { imageLayoutVersion } = layout;
  if (imageLayoutVersion !== LAYOUT_VERSION) {
    throw invalid(
      `its layout version is ${JSON.stringify(imageLayoutVersion.slice(0, 40))}, must be "${LAYOUT_VERSION}"`,
    );
  }
  if (await exists(paths.index, fileSystem)) return true;
  return (await fileSystem.readdir(paths.references)).length > 0;
}

/**
 * A crash between making the directories and writing the files leaves no blob; anything else was somebody's
 * work.
 */
async function requireEmpty(paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  for (const algorithm of DIGEST_ALGORITHMS) {
    if ((await fileSystem.readdir(join(paths.blobs, algorithm))).length > 0) {
      throw layoutInvalid(paths.images, 'it holds blobs, but "oci-layout" or "index.json" is missing');
    }
  }
  const index = await exists(paths.index, fileSystem);
  if (index) throw layoutInvalid(paths.images, 'it holds "index.json", but "oci-layout" is missing');
}

async function exists(path: string, fileSystem: FileSystem): Promise<boolean> {
  try {
    await fileSystem.lstat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** What our own layout's files being broken is called. */
export function layoutInvalid(path: string, why: string, cause?: unknown): ShimError {
  return new ShimError("CACHE_LAYOUT_INVALID", `Cannot use cache "${path}": ${why}`, {
    cause,
    details: { remedy: "put the file back from a backup, or move the directory away and pull again", path },
  });
}
