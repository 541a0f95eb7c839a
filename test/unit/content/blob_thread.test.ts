/** One rule for a blob's blocks, on the main thread and on the one that large blobs have. */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { lstat, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { BlobBlocks, type BlockTaker } from "../../../src/content/blob_blocks.ts";
import { openOnThread } from "../../../src/content/blob_thread.ts";
import { ContentStore } from "../../../src/content/content_store.ts";
import { nodeFileSystem, type OpenFile } from "../../../src/host/file_system.ts";
import { toIoError } from "../../../src/host/io_error.ts";
import { randomBlob } from "../../support/blobs.ts";
import { codeOf } from "../../support/failures.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { chunksOf, contentOf, streamOf } from "../../support/streams.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const MIB = 1024 * 1024;
const temporary = useTemporaryDirectory();
const opened: OpenFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
});

async function openFile(path: string): Promise<OpenFile> {
  const file = await nodeFileSystem.open(path, constants.O_RDWR | constants.O_CREAT);
  opened.push(file);
  return file;
}

const takers: Readonly<Record<string, (path: string, file: OpenFile) => Promise<BlockTaker>>> = {
  "the main thread": (_, file) => Promise.resolve(new BlobBlocks(file, "sha256")),
  "a thread": (path, file) => openOnThread(path, { file, algorithm: "sha256" }),
};

function take(taker: BlockTaker, bytes: Uint8Array, offsetBytes: number): Promise<void> {
  const block = taker.makeBlock(bytes.length);
  block.set(bytes);
  return taker.take(block, offsetBytes);
}

describe.each(Object.entries(takers))("blocks on %s", (_name, openTaker) => {
  it("are written where they belong, hashed in order, zeros as holes", async () => {
    const path = join(temporary(), "file");
    const start = randomBlob(5000).bytes;
    await writeFile(path, start);
    const taker = await openTaker(path, await openFile(path));
    const noise = randomBlob(MIB).bytes;
    const tail = new Uint8Array(2 * MIB);
    try {
      expect(await taker.takePresent(0, 4096)).toBe(4096);
      await Promise.all([take(taker, noise, 4096), take(taker, tail, 4096 + MIB)]);
      const all = Buffer.concat([start.subarray(0, 4096), noise, tail]);
      expect(await taker.hexDigest()).toBe(createHash("sha256").update(all).digest("hex"));
      expect((await readFile(path)).equals(all)).toBe(true);
      expect((await lstat(path)).blocks * 512).toBeLessThan(2 * MIB);
    } finally {
      await taker.close();
    }
  });

  it("fail with the file's errno, and all later ones with the first", async () => {
    const taker = await openTaker("/dev/full", await openFile("/dev/full"));
    const taking = [0, 1, 2].map((at) => take(taker, randomBlob(4096).bytes, at * 4096));
    const failures = [...taking, taker.hexDigest()].map((each) => each.then(() => "", (error) => error));
    for (const error of await Promise.all(failures)) {
      expect(toIoError(error, { action: "write", path: "/dev/full" })).toMatchObject({ code: "NO_SPACE" });
    }
    await taker.close();
  });
});

describe("a sync that began early", () => {
  it("and failed is told at the end to whoever stops before he asks for the hash", async () => {
    const broken = Object.assign(new Error("the test says so"), { code: "EIO" });
    const file = { write: () => Promise.resolve(), sync: () => Promise.reject(broken) };
    const taker = new BlobBlocks(file as unknown as OpenFile, "sha256", { syncEveryBytes: 4096 });
    await take(taker, randomBlob(4096).bytes, 0);
    await expect(taker.close()).rejects.toBe(broken);
  });
});

describe("the thread that takes blobs in", () => {
  it("leaves another file alone that has come into the place of the first", async () => {
    const path = join(temporary(), "file");
    const file = await openFile(path);
    await writeFile(join(temporary(), "other"), "other");
    await rename(join(temporary(), "other"), path);
    const taker = await openOnThread(path, { file, algorithm: "sha256" });
    await expect(take(taker, randomBlob(4096).bytes, 0)).rejects.toMatchObject({ code: "ESTALE" });
    await taker.close();
    expect(await readFile(path, "utf8")).toBe("other");
  });

  it("lost, fails what is asked of it, and the next blob has a new one", async () => {
    const path = join(temporary(), "file");
    const file = await openFile(path);
    const entry = new URL(`data:text/javascript,${encodeURIComponent("throw new Error('lost')")}`);
    const lost = await openOnThread(path, { file, algorithm: "sha256", entry });
    expect(await codeOf(lost.hexDigest())).toBe("INTERNAL");
    // What became of what it had begun to sync nobody knows.
    expect(await codeOf(lost.close())).toBe("INTERNAL");
    const taker = await openOnThread(path, { file, algorithm: "sha256" });
    expect(await taker.hexDigest()).toBe(createHash("sha256").digest("hex"));
    await taker.close();
  });

  it("serves several large blobs at once, and one that is cancelled is continued", async () => {
    const root = join(temporary(), "root");
    const store = await ContentStore.open({ rootDirectory: root, groupId: null });
    const blobs = [randomBlob(17 * MIB), randomBlob(20 * MIB + 17), randomBlob(16 * MIB)] as const;
    const [first] = blobs;
    const stop = new AbortController();
    const cancelled = store.ingest(first.descriptor, () => streamOf(...chunksOf(first.bytes, 70_000)), {
      signal: stop.signal,
      onProgress: (doneBytes) => doneBytes > 9 * MIB && stop.abort(),
    });
    expect(await codeOf(cancelled)).toBe("CANCELLED");
    expect(layoutProblems(root, { partials: 1 })).toEqual([]);
    const contents = blobs.map(({ bytes }) => contentOf(bytes));
    await Promise.all(
      blobs.map(({ descriptor }, at) => store.ingest(descriptor, contents[at] ?? contentOf(first.bytes))),
    );
    expect(contents[0]?.openedAt[0]).toBeGreaterThanOrEqual(9 * MIB - MIB);
    expect(layoutProblems(root)).toEqual([]);
    for (const { descriptor, bytes } of blobs) {
      expect((await readFile(await store.locateBlob(descriptor))).equals(bytes)).toBe(true);
    }
  });
});
