import { readdirSync, readlinkSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CREATE_NEW, nodeFileSystem, READ_EXISTING } from "../../../src/host/file_system.ts";
import { errnoOf } from "../../../src/host/io_error.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const path = () => join(temporary(), "file");
const codeOf = (failing: Promise<unknown>) => failing.then(() => "none", errnoOf);
/** Of files in the test's folder. */
const openDescriptors = () =>
  readdirSync("/proc/self/fd").filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith(temporary());
    } catch {
      // The one that listed them.
      return false;
    }
  });

it("writes and reads where it is told, all of it, and less at the end only", async () => {
  const file = await nodeFileSystem.open(path(), CREATE_NEW, 0o600);
  await file.write(new TextEncoder().encode("world"), 6);
  await file.write(new TextEncoder().encode("hello "), 0);
  await file.sync();
  await file.close();
  expect(await readFile(path(), "utf8")).toBe("hello world");
  const again = await nodeFileSystem.open(path(), READ_EXISTING);
  const buffer = new Uint8Array(20);
  expect(await again.read(buffer, 6)).toBe(5);
  expect(new TextDecoder().decode(buffer.subarray(0, 5))).toBe("world");
  expect(await again.read(buffer, 11)).toBe(0);
  expect(await codeOf(again.write(buffer, 0))).toBe("EBADF");
  await again.close();
});

it("tells what kind of failure it was, whether the file was to be made or not", async () => {
  expect(await codeOf(nodeFileSystem.open(path(), READ_EXISTING))).toBe("ENOENT");
  await writeFile(path(), "");
  expect(await codeOf(nodeFileSystem.open(path(), CREATE_NEW))).toBe("EEXIST");
  expect(await codeOf(nodeFileSystem.open(join(path(), "in"), CREATE_NEW))).toBe("ENOTDIR");
});

it("keeps its descriptor until the last step is over, and takes none once it is closed", async () => {
  await writeFile(path(), new Uint8Array(1 << 20).fill(7));
  for (let round = 0; round < 20; round++) {
    const file = await nodeFileSystem.open(path(), READ_EXISTING);
    const buffers = Array.from({ length: 8 }, () => new Uint8Array(1 << 20));
    const steps = buffers.map((buffer) => file.read(buffer, 0));
    const closing = file.close();
    // Another file, which could be given the same number.
    const other = await nodeFileSystem.open(join(temporary(), `other-${round}`), CREATE_NEW);
    expect(await Promise.allSettled(steps)).toEqual(
      steps.map(() => ({ status: "fulfilled", value: 1 << 20 })),
    );
    await closing;
    expect(buffers.every((buffer) => buffer.every((byte) => byte === 7))).toBe(true);
    expect(await codeOf(file.read(new Uint8Array(1), 0))).toBe("EBADF");
    // Closed again it closes nobody else's.
    await file.close();
    await other.write(new Uint8Array(1), 0);
    await other.close();
  }
  expect(openDescriptors()).toEqual([]);
});
