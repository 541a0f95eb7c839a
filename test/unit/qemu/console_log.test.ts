import { mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openConsoleLog } from "../../../src/qemu/console_log.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-console-log-"));
  path = join(folder, "console.log");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const bytes = (text: string) => new TextEncoder().encode(text);

describe("openConsoleLog", () => {
  it("starts anew, and keeps what was written for the owner only", async () => {
    await writeFile(path, "of an earlier run", { mode: 0o644 });
    const log = await openConsoleLog(path);
    await log.write(bytes("one "));
    await log.write(bytes("two"));
    await log.close();
    expect(await readFile(path, "utf8")).toBe("one two");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  it("keeps the end of endless output in two files", async () => {
    const log = await openConsoleLog(path, 10);
    for (let line = 1000; line < 1100; line++) await log.write(bytes(`${line}\n`));
    await log.close();
    expect((await readdir(folder)).sort()).toEqual(["console.log", "console.log.0"]);
    expect(await readFile(`${path}.0`, "utf8") + await readFile(path, "utf8")).toBe(
      "1096\n1097\n1098\n1099\n",
    );
  });

  it("follows no symbolic link", async () => {
    const target = join(folder, "target");
    await writeFile(target, "precious");
    await symlink(target, path);
    await expect(openConsoleLog(path)).rejects.toMatchObject({
      code: "IO_ERROR",
      details: { errno: "ELOOP" },
    });
    expect(await readFile(target, "utf8")).toBe("precious");
  });
});
