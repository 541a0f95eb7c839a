import { readdirSync } from "node:fs";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { quickNames } from "../../../src/host/quick_names.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("gives the names of a large directory, all that a name may be", async () => {
  const directory = join(temporary(), "large");
  await mkdir(join(directory, "folder"), { recursive: true });
  await symlink("nowhere", join(directory, "link"));
  const odd = ["ü", "日本", "with\nnewline", "...", "-", "a".repeat(255), "é".repeat(127), "\uFEFFmark"];
  const many = Array.from({ length: 2000 }, (_, number) => `${number}-${"x".repeat(60)}`);
  for (const name of [...odd, ...many]) await writeFile(join(directory, name), "");
  const names = await quickNames(directory);
  expect(names?.toSorted()).toEqual(readdirSync(directory).toSorted());
  expect(names).toHaveLength(2010);
  expect((await nodeFileSystem.readdir(directory)).toSorted()).toEqual(names?.toSorted());
});

it("leaves to the runtime what is small, and what it tells the error of", async () => {
  expect(await quickNames(temporary())).toBeUndefined();
  expect(await nodeFileSystem.readdir(temporary())).toEqual([]);
  const missing = join(temporary(), "missing");
  expect(await quickNames(missing)).toBeUndefined();
  await expect(nodeFileSystem.readdir(missing)).rejects.toMatchObject({ code: "ENOENT" });
  const file = join(temporary(), "file");
  await writeFile(file, new Uint8Array(100_000));
  await expect(nodeFileSystem.readdir(file)).rejects.toMatchObject({ code: "ENOTDIR" });
});
