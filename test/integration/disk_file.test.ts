/** The files of machines' disks, as QEMU sees them. */
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import type { Overlay } from "../../src/boot/qcow2_overlay.ts";
import { nodeFileSystem as fileSystem } from "../../src/host/file_system.ts";
import {
  copyFileSparsely,
  type OwnDisk,
  verifyDiskFile,
  writeOverlayFile,
} from "../../src/machine/disk_file.ts";
import { codeOf } from "../support/failures.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const MIB = 1024 * 1024;
const temporary = useTemporaryDirectory();
let base: string;
let path: string;
beforeEach(async () => {
  base = join(temporary(), "base.raw");
  path = join(temporary(), "disk.qcow2");
  await writeFile(base, randomBytes(4096));
  await truncate(base, MIB);
});

const overlayOf = (change: Partial<Overlay> = {}): Overlay => ({
  backingPath: base,
  backingFormat: "raw",
  virtualSizeBytes: 2 * MIB,
  ...change,
});
const write = (change: Partial<Overlay> = {}) => writeOverlayFile(path, overlayOf(change), { fileSystem });
/** What the machine's record says of it. */
const ownDisk = (change: Partial<Overlay> = {}): OwnDisk => {
  const { backingPath, backingFormat, virtualSizeBytes } = overlayOf(change);
  return { path, format: "qcow2", virtualSizeBytes, backing: { path: backingPath, format: backingFormat } };
};
const verify = (change: Partial<Overlay> = {}) => verifyDiskFile(ownDisk(change), fileSystem);
const qemuImg = (...args: string[]) =>
  execFileSync("qemu-img", args, { stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });
const info = (file: string) => JSON.parse(qemuImg("info", "--output=json", "-f", "qcow2", file));
const sha256 = async (file: string) => createHash("sha256").update(await readFile(file)).digest("hex");

describe("writeOverlayFile", () => {
  it.each([512, MIB, 2 * MIB + 512, 512 * MIB, 512 * MIB + 512, 2 ** 40, 2 ** 44])(
    "HD15: is a private, sound qcow2 one level above its base in QEMU's eyes, with %s bytes",
    async (virtualSizeBytes) => {
      await write({ virtualSizeBytes });
      expect(JSON.parse(qemuImg("check", "--output=json", "-f", "qcow2", path))).toMatchObject({
        "check-errors": 0,
        "image-end-offset": (await stat(path)).size,
      });
      expect(info(path)).toMatchObject({
        format: "qcow2",
        "virtual-size": virtualSizeBytes,
        "backing-filename": base,
        "full-backing-filename": base,
        "backing-filename-format": "raw",
        "cluster-size": 65536,
      });
      expect((await stat(path)).mode & 0o777).toBe(0o600);
      expect((await stat(path)).blocks * 512).toBeLessThanOrEqual(64 * 1024);
    },
  );

  it.each(["raw", "qcow2"] as const)(
    "DC24: a guest sees a %s base grown to the byte, and writes",
    async (backingFormat) => {
      const backingPath = join(temporary(), "base");
      qemuImg("convert", "-f", "raw", "-O", backingFormat, base, backingPath);
      const before = await sha256(backingPath);
      await write({ backingPath, backingFormat, virtualSizeBytes: MIB + 512 });
      execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 7 1M 512", "-c", "write -P 9 8k 64k", path]);
      const flat = join(temporary(), "flat.raw");
      qemuImg("convert", "-f", "qcow2", "-O", "raw", path, flat);
      const expected = Buffer.concat([await readFile(base), Buffer.alloc(512, 7)]);
      expected.fill(9, 8192, 8192 + 65536);
      expect((await readFile(flat)).equals(expected)).toBe(true);
      expect(await sha256(backingPath)).toBe(before);
      await verify({ backingPath, backingFormat, virtualSizeBytes: MIB + 512 });
    },
  );

  it.each([
    "a,b=c,,d",
    "nbd:127.0.0.1:10809",
    'json:{"driver":"raw"}',
    "with space and\nnewline",
    "-o",
    "ä€😀",
  ])(
    "reads its base's path back as given: %j",
    async (name) => {
      await mkdir(join(temporary(), name));
      const backingPath = join(temporary(), name, name);
      await writeFile(backingPath, await readFile(base));
      await write({ backingPath });
      expect(info(path)["backing-filename"]).toBe(backingPath);
      qemuImg("check", "-q", "-f", "qcow2", path);
      await verify({ backingPath });
    },
  );

  it("HD13: takes a raw base as raw, although its bytes are a qcow2 header that names a file of the host", async () => {
    const canary = join(temporary(), "canary");
    await writeFile(canary, randomBytes(1024));
    qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", canary, base, "1G");
    const size = (await stat(base)).size;
    await write();
    const flat = join(temporary(), "flat.raw");
    qemuImg("convert", "-f", "qcow2", "-O", "raw", path, flat);
    expect((await readFile(flat)).subarray(0, size).equals(await readFile(base))).toBe(true);
  });

  it("DC23: fails where something is already, be it a link, and does not touch it", async () => {
    const target = join(temporary(), "target");
    await symlink(target, path);
    expect(await codeOf(write())).toBe("IO_ERROR");
    expect(existsSync(target)).toBe(false);
    await rm(path);
    await writeFile(path, "somebody's");
    expect(await codeOf(write())).toBe("IO_ERROR");
    expect(await readFile(path, "utf8")).toBe("somebody's");
  });
});

describe("verifyDiskFile", () => {
  it("HD15: finds an overlay whose base, base's format, size or data file was changed", async () => {
    const other = join(temporary(), "other.raw");
    await writeFile(other, await readFile(base));
    const data = join(temporary(), "data.raw");
    const changes: [string, () => void][] = [
      ["base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", other, path)],
      ["relative base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "base.raw", path)],
      ["base's format", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, path)],
      ["no base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-b", "", path)],
      ["size", () => qemuImg("resize", "-q", "-f", "qcow2", path, "3M")],
      ["data file", () => qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${data}`, path, "2M")],
      ["another format", () => qemuImg("create", "-q", "-f", "qed", path, "2M")],
    ];
    const verdicts = [];
    for (const [what, change] of changes) {
      await write();
      await verify();
      change();
      verdicts.push([what, await codeOf(verify())]);
      await rm(path);
    }
    expect(verdicts).toEqual(changes.map(([what]) => [what, "CONTENT_CORRUPT"]));
  });

  it("takes one that qemu-img made, with snapshots and bitmaps inside, and leaves it as it is", async () => {
    qemuImg("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path, "2M");
    qemuImg("snapshot", "-c", "one", path);
    qemuImg("bitmap", "--add", "-f", "qcow2", path, "two");
    const before = await sha256(path);
    await verify();
    expect(await sha256(path)).toBe(before);
  });

  it("DC11, DC25: finds a disk that is missing, a link, a directory, or cut off", async () => {
    const raw: OwnDisk = { path, format: "raw", virtualSizeBytes: MIB, backing: null };
    const changes: [string, () => Promise<void>][] = [
      ["missing", () => rm(path)],
      ["a link", () => rm(path).then(() => symlink(base, path))],
      ["a directory", () => rm(path).then(() => mkdir(path))],
      ["cut off", () => truncate(path, MIB - 1)],
    ];
    for (const [what, change] of changes) {
      await writeFile(path, new Uint8Array(MIB));
      await verifyDiskFile(raw, fileSystem);
      await change();
      expect([what, await codeOf(verifyDiskFile(raw, fileSystem))]).toEqual([what, "CONTENT_CORRUPT"]);
      await rm(path, { recursive: true, force: true });
    }
  });

  it("HD13: takes a raw disk for raw, whatever header a guest wrote into it", async () => {
    qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/hostname", path, "2M");
    await truncate(path, MIB);
    await verifyDiskFile({ path, format: "raw", virtualSizeBytes: MIB, backing: null }, fileSystem);
  });
});

describe("copyFileSparsely", () => {
  it("DC26: copies a sparse file without its holes, and finds zeros that were none", async () => {
    const source = join(temporary(), "source");
    const [one, two] = [randomBytes(3 * MIB), randomBytes(5000)];
    const file = await open(source, "w");
    await file.write(one, 0, one.length, 30 * MIB + 4096);
    await file.write(Buffer.alloc(4 * MIB), 0, 4 * MIB, 50 * MIB);
    await file.write(two, 0, two.length, 100 * MIB);
    await file.truncate(108 * MIB + 77);
    await file.close();
    const target = join(temporary(), "target");
    await copyFileSparsely(source, target, { fileSystem });
    execFileSync("cmp", [source, target]);
    const { blocks, size } = await stat(target);
    expect(size).toBe(108 * MIB + 77);
    expect(blocks * 512).toBeLessThan(one.length + two.length + 64 * 1024);
  });

  it.each([0, 1, 4095, 4096, 4097, MIB, MIB + 1, 3 * MIB - 5])("copies %s bytes", async (length) => {
    const source = join(temporary(), "source");
    await writeFile(source, randomBytes(length));
    const target = join(temporary(), "target");
    await copyFileSparsely(source, target, { fileSystem });
    expect((await readFile(target)).equals(await readFile(source))).toBe(true);
  });
});
