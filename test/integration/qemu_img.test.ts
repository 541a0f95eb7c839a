import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, open, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { captureProgram, type ProgramRunner } from "../../src/qemu/capture_program.ts";
import { convertImage, growImage, inspectImage } from "../../src/qemu/qemu_img.ts";
import { codeOf, failureOf } from "../support/failures.ts";

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
const qemuImg = (...args: string[]) => execFileSync("qemu-img", args, { stdio: ["ignore", "pipe", "pipe"] });

type Converting = Parameters<typeof convertImage>[0];
/** A conversion of a fresh qcow2 file of 1 MiB to raw. */
function conversion(change: Partial<Converting> = {}): Converting {
  const path = join(folder, "base.qcow2");
  if (change.path === undefined) qemuImg("convert", "-f", "raw", "-O", "qcow2", base, path);
  return {
    path,
    format: "qcow2",
    virtualSizeBytes: MIB,
    targetPath: join(folder, "disk.raw"),
    targetFormat: "raw",
    fileBytes: 300_000,
    availableBytes: 2 ** 30,
    ...change,
  };
}

/** A qcow2 file all of whose entries name one compressed cluster: 4 GiB of noise out of a few MiB of tables. */
async function writeBomb(path: string): Promise<void> {
  qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "4T");
  const noise = join(folder, "noise");
  await writeFile(noise, randomBytes(64 * 1024));
  await truncate(noise, 2 * MIB);
  execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -c -s ${noise} 0 2M`, path]);
  const file = await open(path, "r+");
  const header = Buffer.alloc(104);
  await file.read(header, 0, 104, 0);
  const l1Offset = Number(header.readBigUInt64BE(40));
  const l1 = Buffer.alloc(8);
  await file.read(l1, 0, 8, l1Offset);
  const l2 = Buffer.alloc(2 * MIB);
  const l2Offset = Number(l1.readBigUInt64BE() & 0x00fffffffffffe00n);
  await file.read(l2, 0, 8, l2Offset);
  for (let at = 8; at < l2.length; at += 8) l2.copy(l2, at, 0, 8);
  await file.write(l2, 0, l2.length, l2Offset);
  // The four L1 entries: each of 512 GiB.
  for (let entry = 1; entry < header.readUInt32BE(36); entry++) {
    await file.write(l1, 0, 8, l1Offset + 8 * entry);
  }
  await file.close();
}

/** Changes the L2 entry of a qcow2 file's first guest cluster. */
async function changeFirstCluster(path: string, change: (entry: Buffer) => void): Promise<void> {
  const file = await open(path, "r+");
  const number = Buffer.alloc(8);
  await file.read(number, 0, 8, 40);
  await file.read(number, 0, 8, Number(number.readBigUInt64BE()));
  const entry = Buffer.alloc(8);
  change(entry);
  await file.write(entry, 0, 8, Number(number.readBigUInt64BE() & 0x00fffffffffffe00n));
  await file.close();
}

describe("convertImage", () => {
  it("HD14: names every format in every call, and gives the same content", async () => {
    for (const targetFormat of ["raw", "qcow2"] as const) {
      const targetPath = join(folder, `disk.${targetFormat}`);
      await convertImage(conversion({ targetFormat, targetPath }), { run: recorder });
      qemuImg("compare", "-f", "raw", "-F", targetFormat, base, targetPath);
    }
    expect(
      calls.map(([, ...args]) => args.slice(0, 6).filter((word) => /^(-[fO]|raw|qcow2|[a-z]+)$/.test(word))),
    )
      .toEqual([
        ["measure", "-f", "qcow2", "-O", "qcow2"],
        ["convert", "-f", "qcow2", "-O", "raw"],
        ["measure", "-f", "qcow2", "-O", "qcow2"],
        ["convert", "-f", "qcow2", "-O", "qcow2"],
      ]);
  });

  it("HD12: a bomb of compressed clusters is LIMIT_EXCEEDED before a byte of it is written", async () => {
    const path = join(folder, "bomb.qcow2");
    await writeBomb(path);
    const fileBytes = (await stat(path)).size;
    expect(fileBytes).toBeLessThan(32 * MIB);
    const failure = await failureOf(
      convertImage(conversion({ path, fileBytes, virtualSizeBytes: 4 * 2 ** 40, availableBytes: 2 ** 50 })),
    );
    expect([failure.code, failure.message]).toEqual([
      "LIMIT_EXCEEDED",
      expect.stringContaining("limit is 1000"),
    ]);
    expect((await readdir(folder)).sort()).toEqual(["base.raw", "bomb.qcow2", "noise"]);
  });

  it("DC11: is NO_SPACE before a byte of it is written when the content does not fit", async () => {
    expect(await codeOf(convertImage(conversion({ availableBytes: 1000 })))).toBe("NO_SPACE");
    expect((await readdir(folder)).sort()).toEqual(["base.qcow2", "base.raw"]);
  });

  it.each([
    ["a cluster that does not lie at one", (l2: Buffer) => l2.writeBigUInt64BE((1n << 63n) | 0x10200n)],
    ["compressed data that is none", (l2: Buffer) => l2.writeBigUInt64BE((1n << 62n) | 0x50000n)],
  ])("HD12: is FORMAT_UNSAFE when the tables name %s", async (_what, change) => {
    const wish = conversion();
    await changeFirstCluster(wish.path, change);
    const failure = await failureOf(convertImage(wish));
    expect([failure.code, failure.details["reason"]]).toEqual(["FORMAT_UNSAFE", "table"]);
  });

  it("HD12: takes a cluster behind the file's end for zeros, as QEMU does, and writes none", async () => {
    const wish = conversion();
    await changeFirstCluster(wish.path, (entry) => entry.writeBigUInt64BE((1n << 63n) | (1n << 50n)));
    await convertImage(wish);
    const { size, blocks } = await stat(wish.targetPath);
    expect(size).toBe(MIB);
    expect(blocks * 512).toBeLessThanOrEqual(4096);
  });

  it("HD12: has limits that follow from the disk's size", async () => {
    const seen: unknown[] = [];
    await convertImage(conversion(), {
      run: (argv, options) => {
        const { limits, timeoutMs, maxOutputBytes } = options;
        seen.push({ limits, timeoutMs, maxOutputBytes });
        return captureProgram(argv, options);
      },
    });
    const limits = { addressSpaceBytes: 1024 * MIB, cpuSeconds: 60, fileSizeBytes: 33 * MIB + 2048 };
    expect(new Set(seen.map((each) => JSON.stringify(each)))).toEqual(
      new Set([JSON.stringify({ limits, timeoutMs: 120_000, maxOutputBytes: MIB })]),
    );
  });

  it("takes absolute paths only, and is CANCELLED by its signal", async () => {
    for (const path of ["nbd:localhost:1", "disk.qcow2", "-x", "/a\0b"]) {
      expect(await codeOf(convertImage(conversion({ path }), { run: recorder }))).toBe("INTERNAL");
      expect(await codeOf(convertImage(conversion({ targetPath: path }), { run: recorder }))).toBe(
        "INTERNAL",
      );
    }
    expect(calls).toEqual([]);
    expect(await codeOf(convertImage(conversion(), { signal: AbortSignal.abort() }))).toBe("CANCELLED");
  });
});

describe("growImage", () => {
  it("DC24: grows a qcow2 disk to the byte", async () => {
    const { path } = conversion();
    await growImage(path, { format: "qcow2", virtualSizeBytes: 3 * MIB + 512, run: recorder });
    expect((await inspectImage(path, { format: "qcow2" })).virtualSizeBytes).toBe(3 * MIB + 512);
    expect(calls).toEqual([["qemu-img", "resize", "-q", "-f", "qcow2", path, String(3 * MIB + 512)]]);
    await growImage(path, { format: "qcow2", virtualSizeBytes: 2 ** 44 });
    expect((await inspectImage(path, { format: "qcow2" })).virtualSizeBytes).toBe(2 ** 44);
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
