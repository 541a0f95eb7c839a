import { effectiveUserId, type FileSystem, READ_EXISTING, withOpenFile } from "../../host/file_system.ts";
import { errnoOf } from "../../host/io_error.ts";
import { invalidCredentials } from "./credential.ts";

/** Of a file that holds credentials. A `config.json` of hundreds of registries is smaller. */
const MAX_FILE_BYTES = 1024 * 1024;

export type GuardedFileOptions = {
  readonly fileSystem: FileSystem;
  /** What happens when everybody on the host may read it: other tools write such files, ours are better guarded. */
  readonly whenWorldReadable: "refuse" | "warn";
  readonly onWarning: (message: string) => void;
};

/**
 * Reads a small file that holds credentials: a regular one, of this user or root, changeable by nobody else.
 *
 * @returns undefined when there is none
 * @throws {ShimError} CREDENTIALS_INVALID
 */
export async function readGuardedFile(
  path: string,
  { fileSystem, whenWorldReadable, onWarning }: GuardedFileOptions,
): Promise<string | undefined> {
  const place = `"${path}"`;
  try {
    return await withOpenFile(path, { flags: READ_EXISTING, fileSystem }, async (file) => {
      const { kind, mode, ownerId, sizeBytes } = await file.status();
      if (kind !== "file") throw invalidCredentials(place, "it is no regular file");
      if (ownerId !== 0 && ownerId !== effectiveUserId()) {
        throw invalidCredentials(place, "it belongs to another user", { remedy: "chown it to this user" });
      }
      // With a group of one's own, other tools leave files that the group may write.
      if ((mode & (whenWorldReadable === "refuse" ? 0o022 : 0o002)) !== 0) {
        throw invalidCredentials(place, "others may change it", { remedy: `chmod 600 ${path}` });
      }
      if ((mode & 0o004) !== 0) {
        if (whenWorldReadable === "refuse") {
          throw invalidCredentials(place, "everybody may read it", { remedy: `chmod 600 ${path}` });
        }
        onWarning(`everybody on this host may read the credentials in "${path}" (chmod 600 ${path})`);
      }
      const tooLarge = () => invalidCredentials(place, `it is over ${MAX_FILE_BYTES} bytes`);
      if (sizeBytes > MAX_FILE_BYTES) throw tooLarge();
      // It may have grown since.
      const buffer = new Uint8Array(MAX_FILE_BYTES + 1);
      const length = await file.read(buffer, 0);
      if (length > MAX_FILE_BYTES) throw tooLarge();
      return new TextDecoder().decode(buffer.subarray(0, length));
    });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    // A path through what is no folder, or is not ours to enter, leads to nothing of ours.
    if (errno === "ENOENT" || errno === "ENOTDIR") return undefined;
    const why = errno === "ELOOP"
      ? "it is a symbolic link, which is not followed"
      : `reading it failed (${errno})`;
    throw invalidCredentials(place, why, { cause: error });
  }
}
