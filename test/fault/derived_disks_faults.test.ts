/** Unpacked disks on a host that fails, dies or is attacked: there whole or not at all, and made once. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { ShimError } from "../../src/errors.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { startScript } from "../support/child_script.ts";
import { gzipOf, repeated, zstdOf } from "../support/compressed_bytes.ts";
import {
  allocatedBytes,
  derivedProblems,
  openDerivedDisks,
  sha256Of,
  storeLayer,
} from "../support/derived_kit.ts";
import { rejectionOf } from "../support/failures.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { concat, tarOf } from "../support/tar_bytes.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const MIB = 1024 * 1024;
const GZIP = { compression: "gzip" } as const;
const ZSTD = { compression: "zstd" } as const;

const disk = concat(new Uint8Array(randomBytes(200_000)), new Uint8Array(2 * MIB), Uint8Array.of(1));
const layerBytes = gzipOf(tarOf({ name: "disk.raw", bytes: disk }));

async function preparedRoot(label: string): Promise<{ rootDirectory: string; layer: Descriptor }> {
  const rootDirectory = join(temporary(), label);
  return { rootDirectory, layer: await storeLayer(await openDerivedDisks(rootDirectory), layerBytes) };
}

type Prepared = { readonly rootDirectory: string; readonly layer: Descriptor };

async function unpack({ rootDirectory, layer }: Prepared, fileSystem: FileSystem): Promise<string> {
  const { disks } = await openDerivedDisks(rootDirectory, { fileSystem });
  return (await disks.unpackedDisk(layer, GZIP)).path;
}

async function countOperations(): Promise<number> {
  const fileSystem = new FaultyFileSystem(nodeFileSystem);
  await unpack(await preparedRoot("counted"), fileSystem);
  return fileSystem.operations.length;
}

async function requireWhole(prepared: Prepared): Promise<void> {
  const path = await unpack(prepared, nodeFileSystem);
  expect(Buffer.compare(await readFile(path), disk)).toBe(0);
  expect(derivedProblems(prepared.rootDirectory)).toEqual([]);
  expect(layoutProblems(prepared.rootDirectory)).toEqual([]);
}

describe("a failing file system", () => {
  const codes: Record<string, string> = { EIO: "IO_ERROR", ENOSPC: "NO_SPACE", EMFILE: "BUSY" };

  it.each(Object.keys(codes))(
    "DC10 DC12 DC14 %s at any operation of unpacking: whole or not there, no partial file, the next time works",
    async (errno) => {
      const count = await countOperations();
      expect(count).toBeGreaterThan(60);
      for (let at = 0; at < count; at++) {
        const prepared = await preparedRoot(`at-${at}`);
        const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno });
        const error = await unpack(prepared, fileSystem).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        const failed = fileSystem.operations[at] ?? "";
        // Closing a lock has no news.
        if (error === undefined) {
          expect([at, failed]).toEqual([at, expect.stringMatching(/^close .*\/locks\//)]);
        } else expect([at, failed, error]).toMatchObject([at, failed, { code: codes[errno] }]);
        expect(error === undefined || error instanceof ShimError).toBe(true);
        expect([at, failed, derivedProblems(prepared.rootDirectory)]).toEqual([at, failed, []]);
        if (failed.startsWith("sync ")) expect(fileSystem.operations.slice(at + 1)).not.toContain(failed);
        await requireWhole(prepared);
      }
    },
  );

  it("DC01 DC02 a kill at any operation of unpacking: whole or not there, the next time works", async () => {
    const count = await countOperations();
    for (let at = 0; at < count; at++) {
      const prepared = await preparedRoot(`at-${at}`);
      const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "killed" });
      const outcome = await unpack(prepared, fileSystem).then(
        () => "done",
        (error: Error) => error.message,
      );
      // The very last operation lets go of the lock, when all is done.
      expect([at, outcome]).toEqual([at, expect.stringMatching(at === count - 1 ? /^done$/ : /^killed at /)]);
      expect(derivedProblems(prepared.rootDirectory, { isAfterKill: true })).toEqual([]);
      await requireWhole(prepared);
    }
  });
});

describe("several processes", () => {
  /** Some seconds of work for whoever unpacks it. */
  const largeLayer = () =>
    repeated(gzipOf(concat(new Uint8Array(64 * MIB), new Uint8Array(randomBytes(9)))), 24);
  const LARGE_BYTES = 24 * (64 * MIB + 9);

  async function preparedLarge(): Promise<Prepared & { readonly args: readonly string[] }> {
    const rootDirectory = join(temporary(), "root");
    const layer = await storeLayer(await openDerivedDisks(rootDirectory), largeLayer());
    return { rootDirectory, layer, args: [rootDirectory, layer.digest, String(layer.sizeBytes)] };
  }

  async function outputOf(stdout: AsyncIterable<Uint8Array>): Promise<string> {
    const parts: Uint8Array[] = [];
    for await (const part of stdout) parts.push(part);
    return Buffer.concat(parts).toString().trim();
  }

  it("CO01 three at once make it once", async () => {
    const { rootDirectory, layer, args } = await preparedLarge();
    const children = Array.from({ length: 3 }, () => startScript("unpack_script.ts", args));
    const outputs = await Promise.all(children.map((child) => outputOf(child.stdout)));
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0, 0]);
    const path = join(rootDirectory, "derived", "sha256", `${layer.digest.slice(7)}.raw`);
    expect(outputs.sort()).toEqual([`found ${path}`, `found ${path}`, `reading\nmade ${path}`]);
    expect((await lstat(path)).size).toBe(LARGE_BYTES);
    expect(JSON.parse(await readFile(path.replace(".raw", ".json"), "utf8"))).toMatchObject({
      sizeBytes: LARGE_BYTES,
      sha256: await sha256Of(path),
    });
  });

  it("DC01 CO02 kill -9 in the middle: whoever waits takes over, what was left behind is swept", async () => {
    const { rootDirectory, layer, args } = await preparedLarge();
    const child = startScript("unpack_script.ts", args);
    await once(child.stdout, "data");
    const { disks } = await openDerivedDisks(rootDirectory);
    let hasBegun = false;
    const waiting = disks.unpackedDisk(layer, GZIP, { onProgress: () => hasBegun = true });
    expect([hasBegun, await disks.find(layer)]).toEqual([false, undefined]);
    // It reads before it writes: only now there is something to leave behind.
    await vi.waitFor(
      async () => expect(await readdir(join(rootDirectory, "ingest"))).toHaveLength(1),
      30_000,
    );
    child.kill("SIGKILL");
    expect(await child.exited).toBeNull();
    expect(await waiting).toEqual({
      path: join(rootDirectory, "derived", "sha256", `${layer.digest.slice(7)}.raw`),
      sizeBytes: LARGE_BYTES,
    });
    expect(hasBegun).toBe(true);
    expect(await readdir(join(rootDirectory, "ingest"))).toHaveLength(1);
    await openDerivedDisks(rootDirectory);
    expect(await readdir(join(rootDirectory, "ingest"))).toEqual([]);
  });
});

describe("large layers", () => {
  it.each([
    ["gzip", gzipOf, GZIP],
    ["zstd", zstdOf, ZSTD],
  ])("HM22 a bomb of a GiB in %s is refused after some MiB", async (_, pack, packing) => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const rootDirectory = join(temporary(), "root");
    const kit = await openDerivedDisks(rootDirectory, { fileSystem });
    const layer = await storeLayer(kit, repeated(pack(new Uint8Array(64 * MIB).fill(0x41)), 16));
    const begin = fileSystem.operations.length;
    const { code } = await rejectionOf(kit.disks.unpackedDisk(layer, packing));
    expect(code).toBe("LIMIT_EXCEEDED");
    const writes = fileSystem.operations.slice(begin).filter((operation) => operation.startsWith("write "));
    // Each has a MiB at most. The ratio is told by what was read, which may be a chunk ahead.
    expect(writes.length).toBeLessThanOrEqual(Math.max(17, 1000 * layer.sizeBytes / MIB));
    expect(await readdir(join(rootDirectory, "derived", "sha256"))).toEqual([]);
    expect(derivedProblems(rootDirectory)).toEqual([]);
  });

  it.each([
    ["gzip", gzipOf, GZIP],
    ["zstd", zstdOf, ZSTD],
  ])(
    "a sparse disk of 2 GiB in %s takes the space of its content, and its own bytes",
    async (_, pack, packing) => {
      const rootDirectory = join(temporary(), "root");
      const kit = await openDerivedDisks(rootDirectory);
      const parts = Array.from({ length: 4 }, () => new Uint8Array(randomBytes(100_000)));
      const zeros = pack(new Uint8Array(64 * MIB - 100_000));
      const more = repeated(pack(new Uint8Array(64 * MIB)), 7);
      const layer = await storeLayer(kit, concat(...parts.flatMap((part) => [pack(part), zeros, more])));
      const before = process.memoryUsage().rss;
      const { path, sizeBytes } = await kit.disks.unpackedDisk(layer, packing);
      expect(process.memoryUsage().rss - before).toBeLessThan(300 * MIB);
      expect(sizeBytes).toBe(2048 * MIB);
      expect(allocatedBytes(path)).toBeLessThan(MIB);
      const file = await nodeFileSystem.open(path, 0);
      try {
        for (const [i, part] of parts.entries()) {
          const bytes = new Uint8Array(part.length);
          await file.read(bytes, i * 512 * MIB);
          expect(Buffer.compare(bytes, part)).toBe(0);
        }
      } finally {
        await file.close();
      }
      expect(JSON.parse(await readFile(path.replace(".raw", ".json"), "utf8")).sha256).toBe(
        await sha256Of(path),
      );
    },
  );
});
