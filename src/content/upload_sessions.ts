import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { readdirIfThere, statusIfThere, unlinkIfThere, writeDurably } from "../host/durable.ts";
import { type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { withIoErrors } from "../host/io_error.ts";
import { ensurePrivateDirectory } from "../host/private_directory.ts";
import type { Digest } from "../image/digest.ts";
import type { UploadMemory } from "../image/image_source.ts";
import { readLayoutFile } from "./layout_file.ts";
import { PRIVATE_FILE } from "./store_layout.ts";

const MAX_RECORD_BYTES = 64 * 1024;
/** Registries give up an upload that nobody goes on with after a week at most (the distribution's own default). */
const MAX_AGE_MS = 7 * 24 * 3600 * 1000;

const record = z.object({
  schemaVersion: z.literal(1),
  repository: z.string(),
  digest: z.string(),
  url: z.string(),
  chunkBytes: z.int().min(0),
});

/** What is being uploaded, and where to. */
export type UploadKey = {
  /** `HOST/REPOSITORY`. */
  readonly repository: string;
  readonly digest: Digest;
};

/**
 * Uploads that were begun and not finished, below `ROOT/uploads/`, one small private file each: a session's address may
 * be all that is needed to write into it.
 */
export class UploadSessions {
  readonly #directory: string;
  readonly #fileSystem: FileSystem;

  constructor({ rootDirectory, fileSystem = nodeFileSystem }: {
    readonly rootDirectory: string;
    readonly fileSystem?: FileSystem;
  }) {
    this.#directory = join(rootDirectory, "uploads");
    this.#fileSystem = fileSystem;
  }

  /**
   * The memory of one upload. Recalling takes the record away, so that of two processes one goes on with it. Its
   * functions throw {@link ShimError} NO_SPACE, BUSY, IO_ERROR, CACHE_LAYOUT_INVALID.
   */
  memoryOf(key: UploadKey): UploadMemory {
    const name = createHash("sha256").update(`${key.repository}\0${key.digest}`).digest("hex");
    const path = join(this.#directory, `${name}.json`);
    const fileSystem = this.#fileSystem;
    const forget = () =>
      withIoErrors({ action: "forget upload", path }, async () => {
        await unlinkIfThere(path, fileSystem);
      });
    return {
      recall: () =>
        withIoErrors({ action: "recall upload", path }, async () => {
          const found = await this.#read(path);
          // Whoever cannot remove it does not get it.
          if (!await unlinkIfThere(path, fileSystem)) return undefined;
          const isOurs = found?.repository === key.repository && found.digest === key.digest;
          return isOurs ? { url: found.url, chunkBytes: found.chunkBytes } : undefined;
        }),
      keep: (session) =>
        withIoErrors({ action: "keep upload", path }, async () => {
          await ensurePrivateDirectory(this.#directory, { mode: 0o700, groupId: null, fileSystem });
          const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 1, ...key, ...session }));
          await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem });
        }),
      forget,
    };
  }

  /**
   * Removes what no registry can know any more. A clock that jumped costs an upload its head start, and nothing else.
   *
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async sweep(nowMs: number): Promise<void> {
    const path = this.#directory;
    await withIoErrors({ action: "sweep uploads", path }, async () => {
      for (const name of await readdirIfThere(path, this.#fileSystem)) {
        const file = join(path, name);
        const status = await statusIfThere(file, this.#fileSystem);
        if (status?.kind === "file" && nowMs - status.modifiedMs > MAX_AGE_MS) {
          await unlinkIfThere(file, this.#fileSystem);
        }
      }
    });
  }

  async #read(path: string): Promise<z.infer<typeof record> | undefined> {
    const invalid = (why: string) => new ShimError("CONTENT_CORRUPT", `Cannot use record "${path}": ${why}`);
    try {
      return await readLayoutFile(path, {
        schema: record,
        maxBytes: MAX_RECORD_BYTES,
        invalid,
        fileSystem: this.#fileSystem,
      });
    } catch (error) {
      if (error instanceof ShimError && error.code === "CONTENT_CORRUPT") return undefined;
      throw error;
    }
  }
}
