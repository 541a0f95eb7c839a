import { closeSync, openSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { effectiveUserId, nodeFileSystem } from "../../../src/host/file_system.ts";
import { quickStatus } from "../../../src/host/quick_status.ts";
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
