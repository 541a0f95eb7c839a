import { closeSync, openSync } from "node:fs";
import { chmod, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { effectiveUserId, nodeFileSystem } from "../../../src/host/file_system.ts";
import { quickFootprint, quickStatus } from "../../../src/host/quick_status.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("says after many times what the runtime says, and follows each change", async () => {
  const path = join(temporary(), "file");
  await writeFile(path, "some bytes");
  await chmod(path, 0o4640);
  const fd = openSync(path, "r");
  try {
    expect(quickStatus(fd)).toBeUndefined();
    for (let asked = 0; asked < 2000; asked++) quickStatus(fd);
    while (quickStatus(fd) === undefined) await delay(10);
    const expected = { kind: "file", sizeBytes: 10, mode: 0o4640, ownerId: effectiveUserId() };
    expect(quickStatus(fd)).toEqual(expected);
    expect(await nodeFileSystem.lstat(path)).toMatchObject(expected);
    await writeFile(path, "more bytes than before");
    await chmod(path, 0o400);
    expect(quickStatus(fd)).toEqual({ ...expected, sizeBytes: 22, mode: 0o400 });
  } finally {
    closeSync(fd);
  }
  for (const [place, kind] of [[temporary(), "directory"], ["/dev/null", "other"]] as const) {
    const fd = openSync(place, "r");
    expect(quickStatus(fd)?.kind).toBe(kind);
    closeSync(fd);
  }
  // A bad descriptor is the runtime's to tell.
  expect(quickStatus(-1)).toBeUndefined();
});

it("says of a path what it takes on disk, as the runtime does, and leaves it to that to say why not", async () => {
  const [file, link] = [join(temporary(), "sparse"), join(temporary(), "link")];
  await writeFile(file, new Uint8Array(10_000));
  await truncate(file, 10 * 1024 * 1024);
  await utimes(file, 1_700_000_000, 1_700_000_000.25);
  await symlink(file, link);
  for (let asked = 0; asked < 2000; asked++) quickFootprint(file);
  while (quickFootprint(file) === undefined) await delay(10);
  expect(quickFootprint(file)).toMatchObject({ kind: "file", modifiedMs: 1_700_000_000_250 });
  for (const path of [file, link, temporary(), "/dev/null"]) {
    const { kind, allocatedBytes, modifiedMs } = await nodeFileSystem.lstat(path);
    const quick = quickFootprint(path);
    expect([quick?.kind, quick?.allocatedBytes]).toEqual([kind, allocatedBytes]);
    expect(Math.abs((quick?.modifiedMs ?? 0) - modifiedMs)).toBeLessThan(1);
  }
  const missing = join(temporary(), "missing");
  expect(quickFootprint(missing)).toBeUndefined();
  await expect(nodeFileSystem.footprint(missing)).rejects.toMatchObject({ code: "ENOENT" });
});
