import { isAbsolute } from "node:path";
import { z } from "zod";
import type { DiskFormat } from "../boot/prepared_boot.ts";
import { ShimError } from "../errors.ts";
import { captureProgram, type ProgramRunner } from "./capture_program.ts";
import type { ProgramLimits } from "./host_program.ts";

/** For work on headers: seconds and megabytes are plenty, whatever an image claims. Copies of content get more. */
const LIMITS: ProgramLimits = {
  addressSpaceBytes: 1024 * 1024 * 1024,
  cpuSeconds: 10,
  // The tables of a new overlay: 16 MiB for each PiB of its virtual size.
  fileSizeBytes: 256 * 1024 * 1024,
};
const TIMEOUT_MS = 30_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;

export type QemuImgOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Runs qemu-img; a test puts a recorder here. */
  readonly run?: ProgramRunner;
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

const measureJson = z.object({ required: z.int().min(0) });

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
  if (!parsed.success) throw unexpected(action, parsed.error);
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

export type Conversion = {
  /** An image that stands alone: it passed the gate, or we made it. */
  readonly path: string;
  readonly format: DiskFormat;
  readonly virtualSizeBytes: number;
  readonly targetPath: string;
  readonly targetFormat: DiskFormat;
};

/** Content for each byte of a qcow2 file, as for packed layers: all entries of its tables may name one cluster. */
const MAX_RATIO = 1000;
const RATIO_FROM_BYTES = 16 * 1024 * 1024;

/**
 * Writes an image in another format. `targetPath` must not exist; a failure may leave a part of it. Zeros take no space.
 *
 * @param conversion.fileBytes how large the image's file is
 * @param conversion.availableBytes how much may be written
 * @throws {ShimError} LIMIT_EXCEEDED when far more comes out than any disk's content; NO_SPACE; FORMAT_UNSAFE when its
 *   tables make no sense; HYPERVISOR_UNAVAILABLE, HYPERVISOR_TIMEOUT, CANCELLED
 */
export async function convertImage(
  conversion: Conversion & { readonly fileBytes: number; readonly availableBytes: number },
  options: QemuImgOptions = {},
): Promise<void> {
  const { path, format, virtualSizeBytes, targetPath, targetFormat, fileBytes, availableBytes } = conversion;
  requireAbsolute(path);
  requireAbsolute(targetPath);
  const action = `convert image "${path}"`;
  const gibibytes = Math.ceil(virtualSizeBytes / 2 ** 30);
  // It reads all tables, and all content of a raw image.
  const heavy = {
    limits: {
      addressSpaceBytes: LIMITS.addressSpaceBytes,
      cpuSeconds: 30 + 30 * gibibytes,
      // The tables of qcow2 take a thousandth, if that.
      fileSizeBytes: virtualSizeBytes + Math.ceil(virtualSizeBytes / 512) + 32 * 1024 * 1024,
    },
    timeoutMs: 60_000 * (1 + gibibytes),
  };
  try {
    const contentBytes = await measureContent(conversion, { ...options, ...heavy });
    if (contentBytes > Math.max(RATIO_FROM_BYTES, MAX_RATIO * fileBytes)) {
      throw new ShimError(
        "LIMIT_EXCEEDED",
        `Cannot ${action}: ${contentBytes} bytes come out of ${fileBytes} bytes, limit is ${MAX_RATIO} for each`,
      );
    }
    if (contentBytes > availableBytes) {
      throw new ShimError(
        "NO_SPACE",
        `Cannot ${action}: ${availableBytes} bytes are free, ${contentBytes} bytes are needed`,
        { details: { remedy: "free space there, or choose another --root" } },
      );
    }
    await runQemuImg(["convert", "-q", "-f", format, "-O", targetFormat, path, targetPath], {
      action,
      ...options,
      ...heavy,
    });
  } catch (error) {
    // The header passed the gate; what qemu-img fails on is behind it, and the image's own fault.
    if (!(error instanceof ShimError) || error.code !== "QEMU_FAILED" || format !== "qcow2") throw error;
    throw new ShimError("FORMAT_UNSAFE", `Cannot ${action}: its tables are broken`, {
      cause: error,
      details: { reason: "table", tool: error.message, remedy: "publish the image with a sound disk" },
    });
  }
}

/** What a new qcow2 file with the image's content would take: the one figure that counts allocated clusters only. */
async function measureContent(
  { path, format }: Conversion,
  options: QemuImgOptions & Heavy,
): Promise<number> {
  const action = `measure image "${path}"`;
  const args = ["measure", "--output=json", "-f", format, "-O", "qcow2", path];
  const parsed = measureJson.safeParse(parseJson(await runQemuImg(args, { action, ...options })));
  if (parsed.success) return parsed.data.required;
  throw unexpected(action, parsed.error);
}

/**
 * Grows an image that we made, and that no guest has had.
 *
 * @throws {ShimError} QEMU_FAILED, HYPERVISOR_UNAVAILABLE, HYPERVISOR_TIMEOUT, CANCELLED, NO_SPACE
 */
export async function growImage(
  path: string,
  { format, virtualSizeBytes, ...options }: QemuImgOptions & {
    readonly format: DiskFormat;
    readonly virtualSizeBytes: number;
  },
): Promise<void> {
  requireAbsolute(path);
  const args = ["resize", "-q", "-f", format, path, String(virtualSizeBytes)];
  // The tables of a larger disk lie behind what it holds already.
  const fileSizeBytes = LIMITS.fileSizeBytes + virtualSizeBytes;
  await runQemuImg(args, {
    action: `grow image "${path}"`,
    limits: { ...LIMITS, fileSizeBytes },
    ...options,
  });
}

/** A path that begins with "/" is a path to QEMU; others may be taken for a protocol ("nbd:…") or an option ("-…"). */
function requireAbsolute(path: string): void {
  if (isAbsolute(path) && !path.includes("\0")) return;
  throw new ShimError(
    "INTERNAL",
    `Cannot give ${JSON.stringify(path)} to qemu-img: it is not an absolute path`,
  );
}

type Heavy = { readonly limits?: ProgramLimits; readonly timeoutMs?: number };

async function runQemuImg(
  args: readonly string[],
  { action, signal, run = captureProgram, limits = LIMITS, timeoutMs = TIMEOUT_MS }:
    & QemuImgOptions
    & Heavy
    & { readonly action: string },
): Promise<string> {
  try {
    return await run(["qemu-img", ...args], {
      action,
      signal,
      timeoutMs,
      maxOutputBytes: MAX_OUTPUT_BYTES,
      limits,
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

function unexpected(action: string, error: z.ZodError): ShimError {
  return new ShimError(
    "QEMU_FAILED",
    `Cannot ${action}: the answer of qemu-img is not as expected, ${z.prettifyError(error)}`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the schema refuses the text itself, with one message for both.
    return text;
  }
}
