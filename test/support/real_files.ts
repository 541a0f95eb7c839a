import { execFile } from "node:child_process";
import { open } from "node:fs/promises";
import { promisify } from "node:util";
import type { ByteWindow } from "../../src/boot/byte_window.ts";

/** Runs a program to its end; tools of disks and file systems live in sbin. */
export async function runTool(program: string, args: readonly string[], cwd?: string): Promise<void> {
  await promisify(execFile)(program, [...args], {
    cwd,
    env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` },
  });
}

/** Gives what a recogniser says of a real file, and how many bytes it read for that. */
export async function recogniseFile<T>(
  path: string,
  recogniser: (window: ByteWindow) => Promise<T>,
): Promise<{ content: T; readBytes: number }> {
  const file = await open(path, "r");
  try {
    let readBytes = 0;
    const content = await recogniser({
      sizeBytes: (await file.stat()).size,
      read: async (offsetBytes, lengthBytes) => {
        const buffer = new Uint8Array(lengthBytes);
        const { bytesRead } = await file.read(buffer, 0, lengthBytes, offsetBytes);
        readBytes += bytesRead;
        return buffer.subarray(0, bytesRead);
      },
    });
    return { content, readBytes };
  } finally {
    await file.close();
  }
}
