import { readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { syncDirectory, writeDurably } from "../../../src/host/durable.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const bytes = (text: string) => new TextEncoder().encode(text);
const access = { mode: 0o640, groupId: null };

describe("writeDurably", () => {
  it("replaces the file, with the exact mode, in the order that survives a power loss", async () => {
    const path = join(temporary(), "file");
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    await writeFile(path, "old and longer");
    expect(await writeDurably(path, bytes("new"), { ...access, fileSystem })).toBe("synced");
    expect(await readFile(path, "utf8")).toBe("new");
    expect((await stat(path)).mode & 0o7777).toBe(0o640);
    const verbs = fileSystem.operations.map((operation) => operation.split(" ")[0]);
    expect(verbs).toEqual(["open", "write", "chmod", "sync", "close", "rename", "open", "sync", "close"]);
  });

  it("DC14 leaves the old file and no temporary one whatever fails, and never repeats a failed fsync", async () => {
    const path = join(temporary(), "file");
    await writeFile(path, "old");
    for (let at = 0; at < 6; at++) {
      const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "EIO" });
      await expect(writeDurably(path, bytes("new"), { ...access, fileSystem })).rejects.toMatchObject({
        code: "EIO",
      });
      expect(await readFile(path, "utf8")).toBe("old");
      expect(await readdir(temporary())).toEqual(["file"]);
      expect(fileSystem.operations.filter((operation) => operation.startsWith("sync")).length).toBeLessThan(
        2,
      );
    }
  });

  it("replaces what a crash left under a fixed temporary name, without following it", async () => {
    const path = join(temporary(), "file");
    const temporaryPath = join(temporary(), ".file.new");
    await writeFile(join(temporary(), "precious"), "kept");
    await symlink(join(temporary(), "precious"), temporaryPath);
    await writeDurably(path, bytes("new"), { ...access, fileSystem: nodeFileSystem, temporaryPath });
    expect(await readFile(join(temporary(), "precious"), "utf8")).toBe("kept");
    expect((await readdir(temporary())).sort()).toEqual(["file", "precious"]);
  });
});

describe("syncDirectory", () => {
  it.each(["EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"])("DC32 says unsupported at %s", async (errno) => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem, { at: 1, errno });
    expect(await syncDirectory(temporary(), fileSystem)).toBe("unsupported");
  });

  it("rejects at EIO", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem, { at: 1, errno: "EIO" });
    await expect(syncDirectory(temporary(), fileSystem)).rejects.toMatchObject({ code: "EIO" });
  });

  it("says unsupported of the real /proc", async () => {
    expect(await syncDirectory("/proc", nodeFileSystem)).toBe("unsupported");
  });
});
