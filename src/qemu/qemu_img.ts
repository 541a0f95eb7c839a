import { open, rm } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { z } from "zod";
import type { DiskFormat } from "../boot/prepared_boot.ts";
import { ShimError } from "../errors.ts";
import { errnoOf, toIoError } from "../host/io_error.ts";
import { captureProgram, type ProgramRunner } from "./capture_program.ts";
import type { ProgramLimits } from "./host_program.ts";

/** qemu-img works on headers here, never on content: seconds and megabytes are plenty, whatever an image claims. */
const LIMITS: ProgramLimits = {
  addressSpaceBytes: 1024 * 1024 * 1024,
  cpuSeconds: 10,
  // The tables of a new overlay: 16 MiB for each PiB of its virtual size.
  fileSizeBytes: 256 * 1024 * 1024,
};
const TIMEOUT_MS = 30_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;
const SECTOR_BYTES = 512;

export type QemuImgOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Runs qemu-img; a test puts a recorder here. */
  readonly run?: ProgramRunner;
};

export type Overlay = {
  readonly path: string;
  readonly backingPath: string;
  readonly backingFormat: DiskFormat;
  readonly virtualSizeBytes: number;
};

/** What qemu-img reads in one image file; the files it refers to are not opened. */
export type ImageFacts = {
  readonly format: string;
  readonly virtualSizeBytes: number;
  /** What the file takes on disk. */
  readonly allocatedBytes: number;
  /** As written in the image, or null when it stands alone. */
  readonly backing: { readonly path: string; readonly format: string | null } | null;
  /** qcow2 with its content in another file. */
  readonly dataFilePath: string | null;
};

/** @see https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html: `ImageInfo`, as of QEMU 7.2 */
const imageInfoJson = z.object({
  format: z.string(),
  "virtual-size": z.int().min(0),
  "actual-size": z.int().min(0).optional(),
  "backing-filename": z.string().optional(),
  "backing-filename-format": z.string().optional(),
  "format-specific": z.object({ data: z.object({ "data-file": z.string().optional() }) }).optional(),
});

/**
 * Reads an image's header as the stated format; the format is never guessed.
 *
 * Only for files that the format gates of `boot/` let pass, or that we made: qemu-img opens what a header names.
 *
 * @throws {ShimError} QEMU_FAILED when it is not such an image or is in use; HYPERVISOR_UNAVAILABLE;
 *   HYPERVISOR_TIMEOUT; CANCELLED
 */
export async function inspectImage(
  path: string,
  { format, ...options }: QemuImgOptions & { readonly format: DiskFormat },
): Promise<ImageFacts> {
  requireAbsolute(path);
  const action = `inspect image "${path}"`;
  const output = await runQemuImg(["info", "--output=json", "-f", format, path], { action, ...options });
  const parsed = imageInfoJson.safeParse(parseJson(output));
  if (!parsed.success) {
    throw new ShimError(
      "QEMU_FAILED",
      `Cannot ${action}: the answer of qemu-img is not as expected, ${z.prettifyError(parsed.error)}`,
    );
  }
  const answer = parsed.data;
  const backingPath = answer["backing-filename"];
  return {
    format: answer.format,
    virtualSizeBytes: answer["virtual-size"],
    allocatedBytes: answer["actual-size"] ?? 0,
    backing: backingPath === undefined
      ? null
      : { path: backingPath, format: answer["backing-filename-format"] ?? null },
    dataFilePath: answer["format-specific"]?.data["data-file"] ?? null,
  };
}

/**
 * Makes a qcow2 file that reads through to `backingPath` and takes all writes, then reads it back and compares.
 *
 * `path` must not exist; it is the owner's alone (mode 0600) and is removed again on failure. A crash can leave half of
 * it: whoever needs a name that is complete or absent makes it under another name and renames it, which keeps it valid
 * because the backing path is absolute. Nothing is synced.
 *
 * @param overlay.virtualSizeBytes a multiple of 512, and no less than the backing image's
 * @throws {ShimError} CONFLICT when `path` exists; LIMIT_EXCEEDED when the disk would shrink; FORMAT_UNSAFE when the
 *   backing image does not stand alone; CONTENT_CORRUPT when the overlay reads back differently
 * @throws {ShimError} QEMU_FAILED, HYPERVISOR_UNAVAILABLE, HYPERVISOR_TIMEOUT, CANCELLED, NO_SPACE, IO_ERROR
 */
export async function createOverlay(overlay: Overlay, options: QemuImgOptions = {}): Promise<void> {
  const { path, backingPath, backingFormat, virtualSizeBytes } = overlay;
  requireAbsolute(path);
  requireAbsolute(backingPath);
  const action = `create overlay "${path}"`;
  if (
    !Number.isSafeInteger(virtualSizeBytes) || virtualSizeBytes <= 0 || virtualSizeBytes % SECTOR_BYTES !== 0
  ) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot ${action}: size is ${virtualSizeBytes} bytes, must be a multiple of ${SECTOR_BYTES}`,
    );
  }
  const base = await inspectStandaloneBase(overlay, options);
  if (virtualSizeBytes < base.virtualSizeBytes) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot ${action}: size is ${virtualSizeBytes} bytes, the image has ${base.virtualSizeBytes} bytes and a disk never shrinks`,
      { details: { remedy: `ask for at least ${base.virtualSizeBytes} bytes` } },
    );
  }
  await reserve(path);
  try {
    await runQemuImg(
      ["create", "-q", "-f", "qcow2", "-F", backingFormat, "-b", backingPath, path, String(virtualSizeBytes)],
      { action, ...options },
    );
    await compareOverlay(overlay, options);
  } catch (error) {
    // A failing removal would only hide why there is something to remove.
    await rm(path, { force: true }).catch(() => {});
    throw error;
  }
}

/**
 * Checks that an overlay is what it was made as: its backing file by absolute path and format, one level deep, no data
 * elsewhere, its size. For whoever is about to hand it to a guest.
 *
 * @throws {ShimError} CONTENT_CORRUPT when anything differs; FORMAT_UNSAFE when the backing image does not stand alone
 * @throws {ShimError} QEMU_FAILED, HYPERVISOR_UNAVAILABLE, HYPERVISOR_TIMEOUT, CANCELLED
 */
export async function verifyOverlay(overlay: Overlay, options: QemuImgOptions = {}): Promise<void> {
  await compareOverlay(overlay, options);
  await inspectStandaloneBase(overlay, options);
}

async function compareOverlay(overlay: Overlay, options: QemuImgOptions): Promise<void> {
  const { path, backingPath, backingFormat, virtualSizeBytes } = overlay;
  const facts = await inspectImage(path, { format: "qcow2", ...options });
  const expected = {
    backing: { path: backingPath, format: backingFormat },
    virtualSizeBytes,
    dataFilePath: null,
  };
  const found = {
    backing: facts.backing,
    virtualSizeBytes: facts.virtualSizeBytes,
    dataFilePath: facts.dataFilePath,
  };
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new ShimError(
      "CONTENT_CORRUPT",
      `Cannot use overlay "${path}": it says ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`,
      { details: { found, expected, remedy: "release the machine and prepare it again" } },
    );
  }
}

async function inspectStandaloneBase(overlay: Overlay, options: QemuImgOptions): Promise<ImageFacts> {
  const { backingPath, backingFormat } = overlay;
  const base = await inspectImage(backingPath, { format: backingFormat, ...options });
  if (base.backing === null && base.dataFilePath === null) return base;
  const other = base.backing?.path ?? base.dataFilePath;
  throw new ShimError(
    "FORMAT_UNSAFE",
    `Cannot use image "${backingPath}" as a backing file: it refers to ${
      JSON.stringify(other)
    }, must stand alone`,
  );
}

/** qemu-img would overwrite what is there and follow a link; after this it writes into a file that is ours. */
async function reserve(path: string): Promise<void> {
  try {
    await (await open(path, "wx", 0o600)).close();
  } catch (error) {
    if (errnoOf(error) === "EEXIST") {
      throw new ShimError(
        "CONFLICT",
        `Cannot create overlay "${path}": there is a file by that name, expected none`,
        { cause: error },
      );
    }
    throw toIoError(error, { action: "create an overlay", path });
  }
}

/** A path that begins with "/" is a path to QEMU; others may be taken for a protocol ("nbd:…") or an option ("-…"). */
function requireAbsolute(path: string): void {
  if (isAbsolute(path) && !path.includes("\0")) return;
  throw new ShimError(
    "INTERNAL",
    `Cannot give ${JSON.stringify(path)} to qemu-img: it is not an absolute path`,
  );
}

async function runQemuImg(
  args: readonly string[],
  { action, signal, run = captureProgram }: QemuImgOptions & { readonly action: string },
): Promise<string> {
  try {
    return await run(["qemu-img", ...args], {
      action,
      signal,
      timeoutMs: TIMEOUT_MS,
      maxOutputBytes: MAX_OUTPUT_BYTES,
      limits: LIMITS,
    });
  } catch (error) {
    // Its exit status is 1 whatever happened; the words are libc's, in the language we set.
    const isFull = error instanceof ShimError && error.code === "QEMU_FAILED" &&
      error.message.includes("No space left on device");
    if (!isFull) throw error;
    throw new ShimError("NO_SPACE", `Cannot ${action}: no space is left on its file system`, {
      cause: error,
      details: { remedy: "free space there, or choose another --root" },
    });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the schema refuses the text itself, with one message for both.
    return text;
  }
}
