import { constants } from "node:fs";
import { open, rename } from "node:fs/promises";
import { toIoError } from "../host/io_error.ts";

/** As much as libvirt's virtlogd keeps per file; a guest decides how much it prints, so there must be an end. */
export const CONSOLE_LOG_MAX_BYTES = 2 * 1024 * 1024;

/** The file that keeps the newest output of a guest's console. */
export type ConsoleLog = {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
};

/**
 * Starts the log at `path` anew. A full file becomes `path` + ".0" in place of the one before, so two files of
 * `maxBytes` hold the end of the output. Readable by the owner only; a symbolic link is not followed.
 *
 * @throws {ShimError} NO_SPACE, IO_ERROR; the same from `write` and `close`
 */
export async function openConsoleLog(path: string, maxBytes = CONSOLE_LOG_MAX_BYTES): Promise<ConsoleLog> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
  const translated = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } catch (error) {
      throw toIoError(error, { action: "keep the console log", path });
    }
  };
  const start = () =>
    translated(async () => {
      const opened = await open(path, flags, 0o600);
      // The mode above is for a new file only.
      await opened.chmod(0o600);
      return opened;
    });
  let file = await start();
  let sizeBytes = 0;
  return {
    write: async (bytes) => {
      if (sizeBytes > 0 && sizeBytes + bytes.length > maxBytes) {
        await translated(() => file.close());
        await translated(() => rename(path, `${path}.0`));
        file = await start();
        sizeBytes = 0;
      }
      await translated(() => file.writeFile(bytes));
      sizeBytes += bytes.length;
    },
    close: () => translated(() => file.close()),
  };
}
