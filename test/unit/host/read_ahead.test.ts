import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, open, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import koffi from "koffi";
import { expect, it } from "vitest";
import { readAhead } from "../../../src/host/read_ahead.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const COUNT = 600;
const FILE_BYTES = 4096;
const POSIX_FADV_DONTNEED = 4;

/** What this process had the disk read so far. */
function diskBytes(): number {
  return Number(/^read_bytes: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1]);
}

async function writeOutOfMemory(count: number): Promise<string[]> {
  const advise = koffi.load(null).func(
    "int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)",
  );
  const paths = Array.from({ length: count }, (_, number) => join(temporary(), `document-${number}`));
  for (const path of paths) {
    const file = await open(path, "w");
    await file.writeFile(new Uint8Array(FILE_BYTES).fill(1));
    await file.close();
  }
  // All at once: a sync of each would take a second.
  execFileSync("sync", ["-f", temporary()]);
  for (const path of paths) {
    const file = await open(path, "r");
    advise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
    await file.close();
  }
  return paths;
}

it("brings many files in, so that reading them asks the disk no more", async () => {
  const paths = await writeOutOfMemory(COUNT);
  const descriptors = readdirSync("/proc/self/fd").length;
  const before = diskBytes();
  await readAhead(paths);
  const broughtBytes = diskBytes() - before;
  expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(descriptors);
  for (const path of paths) expect(await readFile(path)).toHaveLength(FILE_BYTES);
  const readBytes = diskBytes() - before - broughtBytes;
  // In memory, as on tmpfs, there is nothing to bring in.
  const isOnDisk =
    execFileSync("stat", ["-f", "-c", "%T", temporary()], { encoding: "utf8" }).trim() !== "tmpfs";
  expect(broughtBytes).toBeGreaterThanOrEqual(isOnDisk ? COUNT * FILE_BYTES * 0.9 : 0);
  expect(readBytes).toBeLessThan(COUNT * FILE_BYTES * 0.1);
  const again = diskBytes();
  await readAhead(paths);
  expect(diskBytes() - again).toBeLessThan(COUNT * FILE_BYTES * 0.1);
});

it("does not fail, and waits for nothing, whatever the paths name", async () => {
  const fifo = join(temporary(), "fifo");
  execFileSync("mkfifo", [fifo]);
  await mkdir(join(temporary(), "folder"));
  await symlink(fifo, join(temporary(), "link"));
  const odd = [
    fifo,
    join(temporary(), "folder"),
    join(temporary(), "link"),
    "/dev/null",
    "/missing",
    "",
    "a\0b",
  ];
  const paths = await writeOutOfMemory(COUNT);
  await readAhead([...odd, ...paths, ...odd]);
  await readAhead(Array.from({ length: COUNT }, () => odd).flat());
  await readAhead([]);
});
