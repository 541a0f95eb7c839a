import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readFirmwareDescriptors } from "../../../src/qemu/firmware_descriptors.ts";

let folder: string;
let systemFolders: string[];
let configHome: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-firmware-"));
  systemFolders = [join(folder, "usr"), join(folder, "etc")];
  configHome = join(folder, "home");
  for (const path of [...systemFolders, join(configHome, "qemu/firmware")]) {
    await mkdir(path, { recursive: true });
  }
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const put = (path: string, json: unknown) => writeFile(join(folder, path), JSON.stringify(json));
const read = () => readFirmwareDescriptors({ systemFolders, configHome });

describe("readFirmwareDescriptors", () => {
  it("orders by file name across folders, and the stronger folder's file hides the weaker's", async () => {
    await put("usr/60-plain.json", "usr 60");
    await put("usr/50-secure.json", "usr 50");
    await put("etc/50-secure.json", "etc 50");
    await put("etc/40-own.json", "etc 40");
    await put("etc/70-mine.json", "etc 70");
    await put("home/qemu/firmware/70-mine.json", "home 70");
    await put("usr/README", "no descriptor");
    expect(await read()).toEqual([
      { path: join(folder, "etc/40-own.json"), json: "etc 40" },
      { path: join(folder, "etc/50-secure.json"), json: "etc 50" },
      { path: join(folder, "usr/60-plain.json"), json: "usr 60" },
      { path: join(folder, "home/qemu/firmware/70-mine.json"), json: "home 70" },
    ]);
  });

  it("lets an empty file or a link to /dev/null hide a descriptor", async () => {
    await put("usr/10-a.json", "a");
    await put("usr/20-b.json", "b");
    await put("usr/30-c.json", "c");
    await writeFile(join(folder, "etc/10-a.json"), "");
    await symlink("/dev/null", join(folder, "home/qemu/firmware/20-b.json"));
    expect(await read()).toEqual([{ path: join(folder, "usr/30-c.json"), json: "c" }]);
  });

  it("is empty where no folder exists", async () => {
    await rm(folder, { recursive: true });
    expect(await read()).toEqual([]);
  });

  it.each([
    ["no JSON", (path: string) => writeFile(path, "{")],
    ["a directory", (path: string) => mkdir(path)],
    ["a pipe", (path: string) => Promise.resolve(execFileSync("mkfifo", [path]))],
    ["far too large", async (path: string) => {
      await writeFile(path, "");
      await truncate(path, 2 ** 30);
    }],
  ])("refuses a descriptor that is %s, unless it is hidden", async (_what, make) => {
    await put("usr/60-plain.json", "usr 60");
    const path = join(folder, "usr/50-broken.json");
    await make(path);
    await expect(read()).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining(path),
      details: { remedy: expect.stringContaining("/etc/qemu/firmware") },
    });
    await writeFile(join(folder, "etc/50-broken.json"), "");
    expect(await read()).toEqual([{ path: join(folder, "usr/60-plain.json"), json: "usr 60" }]);
  });
});
