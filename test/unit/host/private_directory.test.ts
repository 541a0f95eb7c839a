import { chmod, chown, lstat, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { effectiveUserId, nodeFileSystem } from "../../../src/host/file_system.ts";
import { ensurePrivateDirectory, makeParents } from "../../../src/host/private_directory.ts";
import { removeTree } from "../../../src/host/remove_tree.ts";
import { failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const options = { mode: 0o750, groupId: null, fileSystem: nodeFileSystem };
const modeOf = async (path: string) => (await lstat(path)).mode & 0o7777;

describe("ensurePrivateDirectory", () => {
  it.each([0o000, 0o077])("DC09 forces the mode under umask %o", async (mask) => {
    const path = join(temporary(), "new");
    const before = process.umask(mask);
    try {
      await ensurePrivateDirectory(path, options);
      await ensurePrivateDirectory(path, options);
    } finally {
      process.umask(before);
    }
    expect(await modeOf(path)).toBe(0o750);
  });

  it("tightens a directory that others could only read", async () => {
    const path = join(temporary(), "old");
    await mkdir(path);
    await chmod(path, 0o755);
    await ensurePrivateDirectory(path, { ...options, mode: 0o700 });
    expect(await modeOf(path)).toBe(0o700);
  });

  it.runIf(effectiveUserId() === 0)("gives the directory its group", async () => {
    const path = join(temporary(), "new");
    await ensurePrivateDirectory(path, { ...options, groupId: 12345 });
    expect((await lstat(path)).gid).toBe(12345);
  });

  it.each([0o770, 0o707, 0o777, 0o1777])("DC09 refuses mode %o", async (mode) => {
    const path = join(temporary(), "open");
    await mkdir(path);
    await chmod(path, mode);
    const error = await failureOf(ensurePrivateDirectory(path, options));
    expect([error.code, error.message]).toEqual([
      "CACHE_LAYOUT_INVALID",
      `Cannot use directory "${path}": its mode is ${
        mode.toString(8).padStart(4, "0")
      }, must not be writable by group or others`,
    ]);
    expect(await modeOf(path)).toBe(mode);
  });

  it("DC09 refuses a link and a file", async () => {
    const [target, link, file] = [
      join(temporary(), "target"),
      join(temporary(), "link"),
      join(temporary(), "file"),
    ];
    await mkdir(target);
    await symlink(target, link);
    await writeFile(file, "");
    for (const path of [link, file]) {
      const error = await failureOf(ensurePrivateDirectory(path, options));
      expect([error.code, error.message]).toEqual([
        "CACHE_LAYOUT_INVALID",
        `Cannot use directory "${path}": it is a link or a file, must be a directory`,
      ]);
    }
  });

  it.runIf(effectiveUserId() === 0)("DC09 refuses another user's directory", async () => {
    const path = join(temporary(), "theirs");
    await mkdir(path, { mode: 0o700 });
    await chown(path, 12345, 0);
    const error = await failureOf(ensurePrivateDirectory(path, options));
    expect(error.message).toBe(
      `Cannot use directory "${path}": it is owned by user 12345, must be owned by 0`,
    );
  });
});

describe("makeParents", () => {
  it("makes all that is missing above the path, and not the path", async () => {
    await makeParents(join(temporary(), "a", "b", "c"), nodeFileSystem);
    expect(await readdir(join(temporary(), "a"))).toEqual(["b"]);
    expect(await readdir(join(temporary(), "a", "b"))).toEqual([]);
  });
});

describe("removeTree", () => {
  it("DC33 removes links and never what they point to", async () => {
    const [tree, outside] = [join(temporary(), "tree"), join(temporary(), "outside")];
    await mkdir(join(tree, "deep"), { recursive: true });
    await mkdir(outside);
    await writeFile(join(outside, "precious"), "kept");
    await symlink(outside, join(tree, "deep", "to-directory"));
    await symlink(join(outside, "precious"), join(tree, "to-file"));
    await symlink("nowhere", join(tree, "dangling"));
    await removeTree(tree, nodeFileSystem);
    await removeTree(tree, nodeFileSystem);
    expect(await readdir(temporary())).toEqual(["outside"]);
    expect(await readdir(outside)).toEqual(["precious"]);
  });
});
