/** The content store on a file system that fails, fills up or stops: the cache is as before or one step further. */
import { execFileSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ContentStore } from "../../src/content/content_store.ts";
import { ShimError } from "../../src/errors.ts";
import { effectiveUserId, type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import { lineOf, startScript } from "../support/child_script.ts";
import { randomBlob, randomManifest } from "../support/blobs.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { randomWord } from "../support/random_word.ts";
import { contentOf } from "../support/streams.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const MIB = 1024 * 1024;

/**
 * `pull_faults.test.ts` takes every operation of a whole pull, so in the short lane the failures here share the operations;
 * in the long one each of them has all.
 */
const STEP = process.env["BOOTSHIM_FUZZ_RUNS"] === undefined ? 4 : 1;
/** CO14 asks for 10. */
const WRITERS = Number(process.env["BOOTSHIM_INDEX_WRITERS"] ?? "5");

/** A pull in miniature: layer, manifest, then the name. */
const layer = randomBlob(MIB + 5000);
const manifest = randomManifest({ layers: [layer.descriptor] });
const oldManifest = randomManifest();
const name = `127.0.0.1:5000/os/${randomWord()}:1`;

async function pull(rootDirectory: string, fileSystem: FileSystem): Promise<void> {
  const store = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
  await store.ingest(layer.descriptor, contentOf(layer.bytes, 300_000));
  await store.ingestBytes(manifest);
  await store.setReference(name, manifest.descriptor);
}

/** A root whose name stands for the older image already. */
async function preparedRoot(label: string): Promise<string> {
  const rootDirectory = join(temporary(), label);
  const store = await ContentStore.open({ rootDirectory, groupId: null });
  await store.ingestBytes(oldManifest);
  await store.setReference(name, oldManifest.descriptor);
  return rootDirectory;
}

async function digestOfName(rootDirectory: string): Promise<string | undefined> {
  const store = await ContentStore.open({ rootDirectory, groupId: null });
  return (await store.findReference(name))?.descriptor.digest;
}

async function countOperations(): Promise<number> {
  const fileSystem = new FaultyFileSystem(nodeFileSystem);
  await pull(await preparedRoot("counted"), fileSystem);
  return fileSystem.operations.length;
}

describe("a failing file system", () => {
  const codes: Record<string, string> = {
    EIO: "IO_ERROR",
    ENOSPC: "NO_SPACE",
    EDQUOT: "NO_SPACE",
    EMFILE: "BUSY",
  };

  it.each(Object.keys(codes))(
    "DC10 DC12 DC14 DC16 %s at any operation of a pull: what cannot be continued goes, the name old or new, the next pull works",
    async (errno) => {
      const count = await countOperations();
      expect(count).toBeGreaterThan(50);
      const offset = STEP === 1 ? 0 : Object.keys(codes).indexOf(errno);
      for (let at = offset; at < count; at += STEP) {
        const rootDirectory = await preparedRoot(`at-${at}`);
        const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno });
        const error = await pull(rootDirectory, fileSystem).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        // Only closing a lock file may fail unnoticed.
        if (error === undefined) {
          expect(fileSystem.operations[at]).toMatch(
            /^(?:close .*\/locks\/(?:ingest|index|collect|blob-sha256-[0-9a-f]+)|\w+ .*\/verdicts\/.*)$/,
          );
        } else expect(error).toMatchObject({ code: codes[errno] });
        expect(error === undefined || error instanceof ShimError).toBe(true);
        // S1 for what passes by itself, S0 for the rest.
        const partials = codes[errno] === "BUSY" ? "any" : 0;
        expect([
          at,
          fileSystem.operations[at],
          layoutProblems(rootDirectory, { partials, areRecordsAhead: true }),
        ]).toEqual([at, fileSystem.operations[at], []]);
        expect([oldManifest.descriptor.digest, manifest.descriptor.digest]).toContain(
          await digestOfName(rootDirectory),
        );
        const failed = fileSystem.operations[at] ?? "";
        if (failed.startsWith("sync ")) expect(fileSystem.operations.slice(at + 1)).not.toContain(failed);
        await pull(rootDirectory, nodeFileSystem);
        expect(layoutProblems(rootDirectory)).toEqual([]);
        expect(await digestOfName(rootDirectory)).toBe(manifest.descriptor.digest);
      }
    },
  );

  it("DC01 DC02 a kill at any operation of a pull: committed blobs intact, the name old or new, the next pull works", async () => {
    const count = await countOperations();
    for (let at = Math.floor(Math.random() * STEP); at < count; at += STEP) {
      const rootDirectory = await preparedRoot(`at-${at}`);
      const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "killed" });
      const outcome = await pull(rootDirectory, fileSystem).then(
        () => "done",
        (error: Error) => error.message,
      );
      // The very last operations let go of the locks, when all is done.
      expect(outcome).toMatch(at >= count - 2 ? "done" : /^killed at /);
      expect(layoutProblems(rootDirectory, { isAfterKill: true })).toEqual([]);
      expect([oldManifest.descriptor.digest, manifest.descriptor.digest]).toContain(
        await digestOfName(rootDirectory),
      );
      await pull(rootDirectory, nodeFileSystem);
      expect(layoutProblems(rootDirectory)).toEqual([]);
      expect(await digestOfName(rootDirectory)).toBe(manifest.descriptor.digest);
    }
  });

  it("DC01 DC04 a kill at any operation of the first opening: the next opening makes the layout", async () => {
    const counting = new FaultyFileSystem(nodeFileSystem);
    await ContentStore.open({
      rootDirectory: join(temporary(), "counted"),
      groupId: null,
      fileSystem: counting,
    });
    for (let at = 0; at < counting.operations.length; at++) {
      const rootDirectory = join(temporary(), `at-${at}`);
      const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "killed" });
      await expect(ContentStore.open({ rootDirectory, groupId: null, fileSystem })).rejects.toThrow("killed");
      await pull(rootDirectory, nodeFileSystem);
      expect(layoutProblems(rootDirectory)).toEqual([]);
    }
  });
});

describe("a full disk", () => {
  it.runIf(effectiveUserId() === 0)(
    "DC10 says NO_SPACE early or late, leaves no file, and works when there is space again",
    async () => {
      const mountPoint = join(temporary(), "small");
      await mkdir(mountPoint);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", mountPoint]);
      try {
        const rootDirectory = join(mountPoint, "root");
        const store = await ContentStore.open({ rootDirectory, groupId: null });
        const large = randomBlob(9 * MIB);
        expect(await codeOf(store.ingest(large.descriptor, contentOf(large.bytes)))).toBe("NO_SPACE");

        // Passes the first check, because the two do not know of each other; then only one of them fits.
        const rivals = [randomBlob(5 * MIB), randomBlob(5 * MIB)] as const;
        const results = await Promise.allSettled(
          rivals.map((blob) => store.ingest(blob.descriptor, contentOf(blob.bytes, 100_000))),
        );
        const failures = results.filter((result) => result.status === "rejected").map((result) =>
          result.reason.code
        );
        expect(failures.length).toBeGreaterThanOrEqual(1);
        expect(new Set(failures)).toEqual(new Set(["NO_SPACE"]));
        expect(layoutProblems(rootDirectory)).toEqual([]);

        const small = randomBlob(100_000);
        await store.ingest(small.descriptor, contentOf(small.bytes));
        expect((await store.readDocument(small.descriptor)).bytes).toEqual(small.bytes);
        expect(layoutProblems(rootDirectory)).toEqual([]);
      } finally {
        execFileSync("umount", [mountPoint]);
      }
    },
  );

  it.runIf(effectiveUserId() === 0)(
    "DC12 no inode left: the old index stays, the message says where",
    async () => {
      const mountPoint = join(temporary(), "few");
      await mkdir(mountPoint);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m,nr_inodes=22,mode=0700", "tmpfs", mountPoint]);
      try {
        const rootDirectory = join(mountPoint, "root");
        const store = await ContentStore.open({ rootDirectory, groupId: null });
        const blobs = Array.from({ length: 13 }, () => randomBlob(100));
        const stored = [];
        let error: ShimError | undefined;
        for (const blob of blobs) {
          const outcome = await store.ingest(blob.descriptor, contentOf(blob.bytes)).then(
            () => undefined,
            (reason: unknown) => reason,
          );
          if (outcome instanceof ShimError) error = outcome;
          else stored.push(blob);
        }
        expect([error?.code, error?.details["errno"]]).toEqual(["NO_SPACE", "ENOSPC"]);
        const [blob] = stored;
        if (blob) expect((await failureOf(store.setReference(name, blob.descriptor))).code).toBe("NO_SPACE");
        expect(await store.references()).toEqual([]);
        expect(layoutProblems(rootDirectory)).toEqual([]);
      } finally {
        execFileSync("umount", [mountPoint]);
      }
    },
  );
});

describe("several processes", () => {
  it("DC01 DC21 kill -9 in the middle of an ingest leaves a partial that the next one continues", async () => {
    const rootDirectory = join(temporary(), "root");
    const blob = randomBlob(4 * MIB);
    const file = join(temporary(), "bytes");
    await writeFile(file, blob.bytes);
    const child = startScript("ingest_script.ts", [
      JSON.stringify({ rootDirectory, digest: blob.descriptor.digest, file, giveBytes: 3 * MIB }),
    ]);
    await lineOf(child, new RegExp(`^at ${3 * MIB}$`));
    expect(layoutProblems(rootDirectory, { partials: 1 })).toEqual([]);
    await ContentStore.open({ rootDirectory, groupId: null });
    expect(layoutProblems(rootDirectory, { partials: 1 })).toEqual([]);
    child.kill("SIGKILL");
    await child.exited;

    const store = await ContentStore.open({ rootDirectory, groupId: null });
    expect(layoutProblems(rootDirectory, { partials: 1 })).toEqual([]);
    const content = contentOf(blob.bytes);
    await store.ingest(blob.descriptor, content);
    expect(content.openedAt).toHaveLength(1);
    expect(content.openedAt[0]).toBeGreaterThanOrEqual(2 * MIB);
    expect(layoutProblems(rootDirectory)).toEqual([]);
  });

  it(`CO14 fifty index updates from ${WRITERS} processes at once are all kept`, async () => {
    const rootDirectory = join(temporary(), "root");
    const store = await ContentStore.open({ rootDirectory, groupId: null });
    await store.ingestBytes(manifest);
    const { digest, sizeBytes } = manifest.descriptor;
    const prefixes = Array.from({ length: WRITERS }, randomWord);
    const count = 50 / WRITERS;
    const children = prefixes.map((prefix) =>
      startScript("set_references_script.ts", [
        rootDirectory,
        prefix,
        String(count),
        digest,
        String(sizeBytes),
      ])
    );
    expect(await Promise.all(children.map((child) => child.exited))).toEqual(Array(WRITERS).fill(0));
    const expected = prefixes.flatMap((prefix) =>
      Array.from({ length: count }, (_, i) => `127.0.0.1:5000/${prefix}:${i}`)
    );
    expect((await store.references()).map((reference) => reference.name).sort()).toEqual(expected.sort());
    expect(layoutProblems(rootDirectory)).toEqual([]);
  });
});
