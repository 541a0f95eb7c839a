import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { captureProgram, type ProgramRunner } from "../../src/qemu/capture_program.ts";
import { createOverlay, inspectImage, type Overlay, verifyOverlay } from "../../src/qemu/qemu_img.ts";

const MIB = 1024 * 1024;
let folder: string;
let calls: string[][];
let base: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "bootshim-qemu-img-"));
  calls = [];
  base = join(folder, "base.raw");
  await writeFile(base, randomBytes(4096));
  await truncate(base, MIB);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const recorder: ProgramRunner = (argv, options) => {
  calls.push([...argv]);
  return captureProgram(argv, options);
};
const overlayOf = (change: Partial<Overlay> = {}): Overlay => ({
  path: join(folder, "disk.qcow2"),
  backingPath: base,
  backingFormat: "raw",
  virtualSizeBytes: 2 * MIB,
  ...change,
});
const create = (change: Partial<Overlay> = {}) => createOverlay(overlayOf(change), { run: recorder });
const qemuImg = (...args: string[]) => execFileSync("qemu-img", args, { stdio: ["ignore", "pipe", "pipe"] });

/** HD14: qemu-img may not guess a format, whatever it is asked to do. */
function expectExplicitFormats() {
  expect(calls.length).toBeGreaterThan(0);
  for (const [program, command, ...args] of calls) {
    expect([program, command]).toEqual(["qemu-img", expect.stringMatching(/^(?:info|create)$/)]);
    expect(args[args.indexOf("-f") + 1]).toMatch(/^(?:raw|qcow2)$/);
    if (command === "create") {
      expect(args[args.indexOf("-F") + 1]).toMatch(/^(?:raw|qcow2)$/);
      expect(args[args.indexOf("-b") + 1]).toMatch(/^\//);
    }
  }
}

describe("createOverlay", () => {
  it("HD15: makes a private qcow2 one level above its base, with absolute path and formats", async () => {
    await create();
    expect(await inspectImage(join(folder, "disk.qcow2"), { format: "qcow2" })).toEqual({
      format: "qcow2",
      virtualSizeBytes: 2 * MIB,
      allocatedBytes: expect.any(Number),
      backing: { path: base, format: "raw" },
      dataFilePath: null,
    });
    expect((await stat(join(folder, "disk.qcow2"))).mode & 0o777).toBe(0o600);
  });

  it("HD14: names every format in every call", async () => {
    await create();
    await verifyOverlay(overlayOf(), { run: recorder });
    expectExplicitFormats();
    expect(calls.map(([, command]) => command)).toEqual(["info", "create", "info", "info", "info"]);
  });

  it("reads through to a qcow2 base as well", async () => {
    const backingPath = join(folder, "base.qcow2");
    qemuImg("convert", "-f", "raw", "-O", "qcow2", base, backingPath);
    await create({ backingPath, backingFormat: "qcow2" });
    const flat = join(folder, "flat.raw");
    qemuImg("convert", "-f", "qcow2", "-O", "raw", join(folder, "disk.qcow2"), flat);
    expect((await readFile(flat)).subarray(0, MIB).equals(await readFile(base))).toBe(true);
    expectExplicitFormats();
  });

  it.each([
    "a,b=c,,d",
    "nbd:127.0.0.1:10809",
    'json:{"driver":"raw"}',
    "with space and\nnewline",
    "-o",
    "%s #1 \\ 'quote' \"double\"",
    "ä€😀",
  ])("reads its own path and its base's back as given: %j", async (name) => {
    const odd = join(folder, name);
    await mkdir(odd);
    const overlay = { backingPath: join(odd, name), path: join(odd, `overlay ${name}`) };
    await writeFile(overlay.backingPath, await readFile(base));
    await create(overlay);
    expect((await inspectImage(overlay.path, { format: "qcow2" })).backing).toEqual({
      path: overlay.backingPath,
      format: "raw",
    });
    expect((await readdir(odd)).sort()).toEqual([name, `overlay ${name}`].sort());
  });

  it("HD13: takes a raw base as raw, although its bytes are a qcow2 header that names a file of the host", async () => {
    const canary = join(folder, "canary");
    await writeFile(canary, randomBytes(1024));
    const header = join(folder, "header.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", canary, header, "1G");
    await writeFile(base, await readFile(header));
    const size = (await stat(base)).size;
    await create({ virtualSizeBytes: MIB });
    const flat = join(folder, "flat.raw");
    qemuImg("convert", "-f", "qcow2", "-O", "raw", join(folder, "disk.qcow2"), flat);
    expect((await readFile(flat)).subarray(0, size).equals(await readFile(header))).toBe(true);
  });

  it("HD01, HD02: refuses a base that refers to another file, and leaves nothing", async () => {
    const chained = join(folder, "chained.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, chained);
    const split = join(folder, "split.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${join(folder, "data.raw")}`, split, "1M");
    for (const backingPath of [chained, split]) {
      await expect(create({ backingPath, backingFormat: "qcow2" })).rejects.toMatchObject({
        code: "FORMAT_UNSAFE",
        message: expect.stringContaining("must stand alone"),
      });
    }
    expect(existsSync(join(folder, "disk.qcow2"))).toBe(false);
  });

  it("HD21: grows a disk to the byte and never shrinks it", async () => {
    await create({ virtualSizeBytes: MIB + 512 });
    await rm(join(folder, "disk.qcow2"));
    await expect(create({ virtualSizeBytes: MIB - 512 })).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      details: { remedy: `ask for at least ${MIB} bytes` },
    });
    await expect(create({ virtualSizeBytes: MIB + 1 })).rejects.toMatchObject({ code: "REQUEST_INVALID" });
    expect(existsSync(join(folder, "disk.qcow2"))).toBe(false);
  });

  it("is CONFLICT where something is already, be it a link, and does not touch it", async () => {
    const path = join(folder, "disk.qcow2");
    const target = join(folder, "target");
    await symlink(target, path);
    await expect(create()).rejects.toMatchObject({ code: "CONFLICT" });
    expect(existsSync(target)).toBe(false);
    await rm(path);
    await writeFile(path, "somebody's");
    await expect(create()).rejects.toMatchObject({ code: "CONFLICT" });
    expect(await readFile(path, "utf8")).toBe("somebody's");
  });

  it("leaves nothing when qemu-img fails half-way, and tells why", async () => {
    const run: ProgramRunner = async (argv, options) => {
      const output = await captureProgram(argv, options);
      if (argv[1] === "create") await truncate(join(folder, "disk.qcow2"), 100);
      return output;
    };
    await expect(createOverlay(overlayOf(), { run })).rejects.toMatchObject({ code: "QEMU_FAILED" });
    expect(await readdir(folder)).toEqual(["base.raw"]);
    const missing = join(folder, "missing.raw");
    await expect(create({ backingPath: missing })).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("No such file or directory"),
    });
    expect(await readdir(folder)).toEqual(["base.raw"]);
  });

  it("takes absolute paths only", async () => {
    for (const path of ["nbd:localhost:1", "disk.qcow2", "-x", "/a\0b"]) {
      await expect(create({ path })).rejects.toMatchObject({ code: "INTERNAL" });
      await expect(create({ backingPath: path })).rejects.toMatchObject({ code: "INTERNAL" });
    }
    expect(calls).toEqual([]);
  });

  it("is CANCELLED by its signal", async () => {
    const signal = AbortSignal.abort();
    await expect(createOverlay(overlayOf(), { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await readdir(folder)).toEqual(["base.raw"]);
  });
});

describe("verifyOverlay", () => {
  it("HD15: finds an overlay whose base, base's format or size was changed", async () => {
    const path = join(folder, "disk.qcow2");
    const other = join(folder, "other.raw");
    await writeFile(other, await readFile(base));
    const changes: [string, () => void][] = [
      ["base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", other, path)],
      ["relative base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "base.raw", path)],
      ["base's format", () => qemuImg("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, path)],
      ["no base", () => qemuImg("rebase", "-u", "-f", "qcow2", "-b", "", path)],
      ["size", () => qemuImg("resize", "-q", "-f", "qcow2", path, "3M")],
    ];
    const verdicts = [];
    for (const [what, change] of changes) {
      await create();
      await verifyOverlay(overlayOf());
      change();
      verdicts.push([what, await verifyOverlay(overlayOf()).catch((error) => error.code)]);
      await rm(path);
    }
    expect(verdicts).toEqual(changes.map(([what]) => [what, "CONTENT_CORRUPT"]));
  });

  it("leaves overlay and base as they are", async () => {
    await create();
    const digest = async (path: string) => createHash("sha256").update(await readFile(path)).digest("hex");
    const paths = [base, join(folder, "disk.qcow2")];
    const before = await Promise.all(paths.map(digest));
    await verifyOverlay(overlayOf());
    expect(await Promise.all(paths.map(digest))).toEqual(before);
  });
});

describe("inspectImage", () => {
  it("HD08: reads as the format it is told, not as the one the bytes suggest", async () => {
    const image = join(folder, "image.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", image, "1G");
    expect(await inspectImage(image, { format: "qcow2" })).toMatchObject({
      format: "qcow2",
      virtualSizeBytes: 1024 * MIB,
    });
    // QEMU counts whole sectors.
    const sectors = Math.ceil((await stat(image)).size / 512);
    expect((await inspectImage(image, { format: "raw" })).virtualSizeBytes).toBe(512 * sectors);
    await expect(inspectImage(base, { format: "qcow2" })).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("not in qcow2 format"),
    });
  });

  it("HD12: runs qemu-img under limits of time, memory, file size and output", async () => {
    let limits: unknown;
    await inspectImage(base, {
      format: "raw",
      run: (argv, options) => {
        limits = {
          limits: options.limits,
          timeoutMs: options.timeoutMs,
          maxOutputBytes: options.maxOutputBytes,
        };
        return captureProgram(argv, options);
      },
    });
    expect(limits).toEqual({
      limits: { addressSpaceBytes: 1024 * MIB, cpuSeconds: 10, fileSizeBytes: 256 * MIB },
      timeoutMs: 30_000,
      maxOutputBytes: MIB,
    });
  });

  it.each(["", "{}", "not JSON", '{"format":"raw","virtual-size":9223372036854775807}'])(
    "is QEMU_FAILED on an answer it does not understand: %j",
    async (answer) => {
      const inspected = inspectImage(base, { format: "raw", run: () => Promise.resolve(answer) });
      await expect(inspected).rejects.toMatchObject({ code: "QEMU_FAILED" });
    },
  );
});

it("DC11 a full disk: createOverlay says NO_SPACE and leaves nothing", async () => {
  const full = join(folder, "full");
  await mkdir(full);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", full]);
  try {
    const path = join(full, "disk.qcow2");
    await expect(create({ path })).rejects.toMatchObject({ code: "NO_SPACE" });
    expect(await readdir(full)).toEqual([]);
  } finally {
    execFileSync("umount", [full]);
  }
});
