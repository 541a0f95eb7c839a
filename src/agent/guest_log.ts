import { open } from "node:fs/promises";
import { join } from "node:path";

/** Where root's libvirt keeps what each guest's QEMU said. */
export const SYSTEM_LOG_DIRECTORY = "/var/log/libvirt/qemu";

const TAIL_BYTES = 4096;
const TAIL_LINES = 10;

/**
 * The last words of a guest's QEMU, one per line; empty when there is no log that we may read. The guest may write
 * what it likes into its QEMU's messages: not to be trusted.
 *
 * @param options.directory where libvirt keeps the logs
 */
export async function readGuestLog(
  id: string,
  { directory }: { readonly directory: string },
): Promise<string> {
  try {
    const file = await open(join(directory, `${id}.log`), "r");
    try {
      const { size } = await file.stat();
      const tail = Buffer.alloc(Math.min(size, TAIL_BYTES));
      await file.read(tail, 0, tail.length, size - tail.length);
      return lastWords(tail.toString("utf8"));
    } finally {
      await file.close();
    }
  } catch {
    // Missing, or not ours to read: the failure is told all the same
    return "";
  }
}

/** Without libvirt's own lines: the environment and command it started QEMU with, which it breaks by backslashes. */
export function lastWords(log: string): string {
  const lines = log.split("\n");
  const command = lines.findLastIndex((line) => line.endsWith("\\"));
  // The line after the last broken one is the command's end
  const words = lines.slice(command === -1 ? 0 : command + 2).filter((line) => line !== "");
  return words.slice(-TAIL_LINES).join("\n");
}
