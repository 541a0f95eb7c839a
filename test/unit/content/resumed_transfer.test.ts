/** What interrupted transfers leave, and how the next one goes on: S0 is the cache as before, S1 one partial more. */
import {
  chmod,
  link,
  lstat,
  readdir,
  readFile,
  symlink,
  truncate,
  unlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content_store.ts";
import { type ErrorCode, ShimError } from "../../../src/errors.ts";
import { type FileSystem, nodeFileSystem } from "../../../src/host/file_system.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import { type Blob, blobOf, randomBlob } from "../../support/blobs.ts";
import { codeOf } from "../../support/failures.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { chunksOf, contentOf, streamOf } from "../../support/streams.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const MIB = 1024 * 1024;
const root = () => join(temporary(), "root");
const open = (fileSystem: FileSystem = nodeFileSystem) =>
  ContentStore.open({ rootDirectory: root(), groupId: null, fileSystem });
const blob = randomBlob(3 * MIB + 5000);
const broken = (code: ErrorCode, details = {}) =>
  new ShimError(code, "Cannot fetch: the test says so", { details });

/** Gives the first bytes, then fails. */
function cutAt(bytes: Uint8Array, givenBytes: number, error: unknown): () => ReadableStream<Uint8Array> {
  return () => {
    const chunks = chunksOf(bytes.subarray(0, givenBytes), 100_000);
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        const chunk = chunks.shift();
        if (chunk) controller.enqueue(chunk);
        else controller.error(error);
      },
    }, { highWaterMark: 0 });
  };
}

function partialOf({ digest }: Descriptor, suffix: "partial" | "json" = "partial"): string {
  return join(root(), "ingest", `${digest.replace(":", "-")}.${suffix}`);
}

/** A store in which a transfer of this blob was interrupted after 2 MiB. */
async function interrupted(of: Blob = blob): Promise<ContentStore> {
  const store = await open();
  const cut = cutAt(of.bytes, 2 * MIB, broken("REGISTRY_UNAVAILABLE"));
  expect(await codeOf(store.ingest(of.descriptor, cut))).toBe("REGISTRY_UNAVAILABLE");
  expect(layoutProblems(root(), { partials: 1 })).toEqual([]);
  return store;
}

async function expectStored(store: ContentStore, { descriptor, bytes }: Blob = blob): Promise<void> {
  expect((await readFile(await store.locateBlob(descriptor))).equals(bytes)).toBe(true);
  expect(layoutProblems(root())).toEqual([]);
}

describe("an interrupted transfer", () => {
  it("goes on where it stopped, in another process's store, and fetches only the rest", async () => {
    await interrupted();
    const content = contentOf(blob.bytes);
    const store = await open();
    const done: number[] = [];
    const { receivedBytes } = await store.ingest(blob.descriptor, content, {
      onProgress: (each) => done.push(each),
    });
    expect([content.openedAt, receivedBytes]).toEqual([[2 * MIB], MIB + 5000]);
    expect([done[0], done.at(-1)]).toEqual([MIB, blob.bytes.length]);
    await expectStored(store);
  });

  it("RP23 asks for nothing when every byte had come", async () => {
    const store = await open();
    const gate = { beforeCommit: () => Promise.reject(broken("REGISTRY_TIMEOUT")) };
    expect(await codeOf(store.ingest(blob.descriptor, contentOf(blob.bytes), gate))).toBe("REGISTRY_TIMEOUT");
    expect(layoutProblems(root(), { partials: 0 })).not.toEqual([]);
    const content = contentOf(blob.bytes);
    expect(await store.ingest(blob.descriptor, content)).toMatchObject({ receivedBytes: 0 });
    expect(content.openedAt).toEqual([]);
    await expectStored(store);
  });

  it.each([17, 4096 + 1, MIB + 4095])("goes on from %i bytes, on whole blocks", async (givenBytes) => {
    const store = await open();
    await codeOf(store.ingest(blob.descriptor, cutAt(blob.bytes, givenBytes, broken("REGISTRY_TIMEOUT"))));
    const content = contentOf(blob.bytes);
    await store.ingest(blob.descriptor, content);
    expect(content.openedAt).toEqual([givenBytes - givenBytes % 4096]);
    await expectStored(store);
  });

  it("DC26 keeps zeros as holes, and knows how far it came when the last bytes were zeros", async () => {
    const bytes = new Uint8Array(16 * MIB);
    bytes.set(randomBlob(5000).bytes, 4096);
    bytes.set(randomBlob(5000).bytes, 12 * MIB);
    const sparse = blobOf(bytes);
    const store = await open();
    await codeOf(store.ingest(sparse.descriptor, cutAt(bytes, 8 * MIB, broken("REGISTRY_UNAVAILABLE"))));
    expect((await lstat(partialOf(sparse.descriptor))).size).toBe(8 * MIB);
    const content = contentOf(bytes);
    await store.ingest(sparse.descriptor, content);
    expect(content.openedAt).toEqual([8 * MIB]);
    expect((await lstat(store.blobPath(sparse.descriptor.digest))).blocks * 512).toBeLessThanOrEqual(
      32 * 1024,
    );
    await expectStored(store, sparse);
  });

  it.each<[string, unknown]>([
    ["a cancellation", broken("CANCELLED")],
    ["REGISTRY_RATE_LIMITED", broken("REGISTRY_RATE_LIMITED")],
    ["a login that ran out", broken("REGISTRY_UNAUTHORIZED")],
    ["REGISTRY_NOT_FOUND", broken("REGISTRY_NOT_FOUND")],
    ["RP20 an answer that is another range", broken("REGISTRY_PROTOCOL")],
    ["REDIRECT_REFUSED", broken("REDIRECT_REFUSED")],
    ["EMFILE", Object.assign(new Error("EMFILE"), { code: "EMFILE" })],
    [
      "RP11 RP12 an end too early",
      broken("CONTENT_SIZE_MISMATCH", { receivedBytes: 2 * MIB, expectedBytes: blob.bytes.length }),
    ],
  ])("S1 stays after %s", async (_case, error) => {
    const store = await open();
    await expect(store.ingest(blob.descriptor, cutAt(blob.bytes, 2 * MIB, error))).rejects.toThrow();
    expect(layoutProblems(root(), { partials: 1 })).toEqual([]);
    await open();
    expect(layoutProblems(root(), { partials: 1 })).toEqual([]);
  });

  it.each<[string, unknown]>([
    ["RP13 too many bytes", broken("CONTENT_SIZE_MISMATCH", { receivedBytes: 9e9, expectedBytes: 9 })],
    ["a full disk", Object.assign(new Error("ENOSPC"), { code: "ENOSPC" })],
    ["a failure without a code", new Error("unforeseen")],
  ])("S0 goes with %s, however long it was there", async (_case, error) => {
    const store = await interrupted();
    await expect(store.ingest(blob.descriptor, cutAt(blob.bytes.subarray(2 * MIB), 10, error))).rejects
      .toThrow();
    expect(layoutProblems(root())).toEqual([]);
    await store.ingest(blob.descriptor, contentOf(blob.bytes));
    await expectStored(store);
  });

  it("S0 goes when the transfer was cancelled because the image is wrong, S1 stays for any other reason", async () => {
    const reasons: [unknown, number][] = [
      [broken("CONTENT_DIGEST_MISMATCH"), 0],
      [broken("REGISTRY_TIMEOUT"), 1],
      [broken("CANCELLED"), 1],
      ["the user", 1],
    ];
    for (const [reason, partials] of reasons) {
      const store = await open();
      const abort = new AbortController();
      const onProgress = (doneBytes: number) => void (doneBytes >= 2 * MIB && abort.abort(reason));
      const ingest = store.ingest(blob.descriptor, contentOf(blob.bytes), {
        signal: abort.signal,
        onProgress,
      });
      expect(await codeOf(ingest)).toBe("CANCELLED");
      expect([reason, layoutProblems(root(), { partials })]).toEqual([reason, []]);
    }
  });

  it("DC14 a failing fsync is final: the file goes, and is not synced again", async () => {
    const synced: string[] = [];
    const failing: FileSystem = {
      ...nodeFileSystem,
      open: async (...args) => {
        const file = await nodeFileSystem.open(...args);
        const sync = () => {
          synced.push(args[0]);
          return Promise.reject(Object.assign(new Error("EIO"), { code: "EIO" }));
        };
        return args[0].endsWith(".partial") ? { ...file, sync } : file;
      },
    };
    const store = await open(failing);
    expect(await codeOf(store.ingest(blob.descriptor, contentOf(blob.bytes)))).toBe("IO_ERROR");
    expect(synced).toEqual([partialOf(blob.descriptor)]);
    expect(layoutProblems(root())).toEqual([]);
  });
});

describe("a disk that does not give back what was written", () => {
  it("DC13 EIO while a partial is read again: IO_ERROR, it goes, and the next call fetches all", async () => {
    await interrupted();
    const failing: FileSystem = {
      ...nodeFileSystem,
      open: async (...args) => {
        const file = await nodeFileSystem.open(...args);
        const read = () => Promise.reject(Object.assign(new Error("EIO"), { code: "EIO" }));
        return args[0].endsWith(".partial") ? { ...file, read } : file;
      },
    };
    const store = await open(failing);
    const content = contentOf(blob.bytes);
    expect(await codeOf(store.ingest(blob.descriptor, content))).toBe("IO_ERROR");
    expect([content.openedAt, layoutProblems(root())]).toEqual([[], []]);
    await (await open()).ingest(blob.descriptor, content);
    expect(content.openedAt).toEqual([0]);
    await expectStored(store);
  });

  it("DC16 too many open files at any opening: BUSY, no descriptor stays open, and it works again at once", async () => {
    const store = await open();
    const openFiles = async () => (await readdir("/proc/self/fd")).length;
    const before = await openFiles();
    let opened = 0;
    for (let at = 0;; at++) {
      opened = 0;
      let path = "";
      const few: FileSystem = {
        ...nodeFileSystem,
        open: (...args) => {
          if (opened++ !== at) return nodeFileSystem.open(...args);
          path = args[0];
          return Promise.reject(Object.assign(new Error("EMFILE"), { code: "EMFILE" }));
        },
      };
      const limited = await open(few).catch((error: unknown) => error);
      const ingest = limited instanceof ContentStore
        ? limited.ingest(blob.descriptor, contentOf(blob.bytes)).then(() => undefined)
        : Promise.reject(limited);
      const error = await ingest.catch((reason: unknown) => reason);
      expect(await openFiles()).toBeLessThanOrEqual(before);
      if (opened <= at) break;
      // That a stored blob was hashed is only noted where that can be done: else it is hashed once more.
      if (error === undefined) expect(path).toMatch(/\/(?:verdicts|images\/blobs)\//);
      else expect([path, error]).toEqual([path, expect.objectContaining({ code: "BUSY" })]);
      await store.ingest(blob.descriptor, contentOf(blob.bytes));
      await unlink(store.blobPath(blob.descriptor.digest));
    }
    expect(opened).toBeGreaterThan(5);
  });
});

describe("a partial file that is not what it should be", () => {
  const flip = async (path: string) => {
    const bytes = await readFile(path);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    await writeFile(path, bytes);
  };
  type Damage = [string, (data: string, metadata: string) => Promise<unknown>, number[]];
  const damages: Damage[] = [
    ["DC27 its beginning was changed", (data) => flip(data), [2 * MIB, 0]],
    ["DC28 it is whole and wrong", (data) => writeFile(data, randomBlob(blob.bytes.length).bytes), [0]],
    ["DC27 it is longer than the blob", (data) => truncate(data, blob.bytes.length + 1), [0]],
    ["DC27 it is shorter than it was", (data) => truncate(data, MIB), [MIB]],
    ["DC27 it is empty", (data) => truncate(data, 0), [0]],
    ["DC27 its metadata is missing", (_data, metadata) => unlink(metadata), [0]],
    ["DC27 its metadata is torn", (_data, metadata) => truncate(metadata, 10), [0]],
    ["DC27 its metadata is of another descriptor", async (_data, metadata) => {
      const text = await readFile(metadata, "utf8");
      await writeFile(metadata, text.replace(String(blob.bytes.length), "7"));
    }, [0]],
    ["DC27 its metadata is of another version", async (_data, metadata) => {
      const text = await readFile(metadata, "utf8");
      await writeFile(metadata, text.replace('"schemaVersion":1', '"schemaVersion":2'));
    }, [0]],
    ["DC08 it is a link to a file of ours", async (data) => {
      await link(data, join(temporary(), "elsewhere"));
      await unlink(data);
      await symlink(join(temporary(), "elsewhere"), data);
    }, [0]],
    ["DC08 others may write it", (data) => chmod(data, 0o622), [0]],
    ["it is read-only, as just before its end", (data) => chmod(data, 0o440), [2 * MIB]],
  ];

  it.each(damages)("%s: the blob is right all the same", async (_case, damage, openedAt) => {
    const store = await interrupted();
    await damage(partialOf(blob.descriptor), partialOf(blob.descriptor, "json"));
    const content = contentOf(blob.bytes);
    await store.ingest(blob.descriptor, content);
    expect(content.openedAt).toEqual(openedAt);
    await expectStored(store);
  });

  it("DC21 is swept at the next opening when its other half, or its use, is gone", async () => {
    await interrupted();
    await unlink(partialOf(blob.descriptor, "json"));
    await open();
    expect(layoutProblems(root())).toEqual([]);

    await interrupted();
    await unlink(partialOf(blob.descriptor));
    await open();
    expect(layoutProblems(root())).toEqual([]);

    const store = await interrupted();
    await writeFile(store.blobPath(blob.descriptor.digest), blob.bytes, { mode: 0o400 });
    await open();
    expect(layoutProblems(root())).toEqual([]);
  });
});

describe("wrong bytes", () => {
  const flipped = Uint8Array.from(blob.bytes, (byte, i) => i === MIB ? byte ^ 1 : byte);

  it("RP14 are fetched once more in full, then refused, and leave nothing; the next call succeeds", async () => {
    const store = await open();
    const wrong = contentOf(flipped);
    expect(await codeOf(store.ingest(blob.descriptor, wrong))).toBe("CONTENT_DIGEST_MISMATCH");
    expect(wrong.openedAt).toEqual([0, 0]);
    expect(layoutProblems(root())).toEqual([]);
    expect(await readdir(join(root(), "images/blobs/sha256"))).toEqual([]);
    await store.ingest(blob.descriptor, contentOf(blob.bytes));
    await expectStored(store);
  });

  it("RP14 that come only once do no harm", async () => {
    const store = await open();
    const contents = [flipped, blob.bytes];
    const { receivedBytes } = await store.ingest(
      blob.descriptor,
      () => streamOf(contents.shift() ?? flipped),
    );
    expect(receivedBytes).toBe(2 * blob.bytes.length);
    await expectStored(store);
  });

  it("DC28 a resumed transfer that turns out wrong is fetched once in full, and no more", async () => {
    const store = await interrupted();
    const wrong = contentOf(flipped);
    await writeFile(partialOf(blob.descriptor), flipped.subarray(0, 2 * MIB));
    expect(await codeOf(store.ingest(blob.descriptor, wrong))).toBe("CONTENT_DIGEST_MISMATCH");
    expect(wrong.openedAt).toEqual([2 * MIB, 0]);
    expect(layoutProblems(root())).toEqual([]);
  });
});

describe("memory", () => {
  it("CO18 takes no more from a fast source than it can write: 8 MiB at most", async () => {
    let givenBytes = 0;
    let writtenBytes = 0;
    let mostBytes = 0;
    const slow: FileSystem = {
      ...nodeFileSystem,
      open: async (...args) => {
        const file = await nodeFileSystem.open(...args);
        const write = async (bytes: Uint8Array, offset: number) => {
          await new Promise((resolve) => setTimeout(resolve, 5));
          await file.write(bytes, offset);
          writtenBytes += bytes.length;
        };
        return args[0].endsWith(".partial") ? { ...file, write } : file;
      },
    };
    const large = randomBlob(24 * MIB);
    const chunks = chunksOf(large.bytes, 64 * 1024);
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        const chunk = chunks.shift();
        if (!chunk) return controller.close();
        givenBytes += chunk.length;
        mostBytes = Math.max(mostBytes, givenBytes - writtenBytes);
        controller.enqueue(chunk);
      },
    }, { highWaterMark: 0 });
    const store = await open(slow);
    await store.ingest(large.descriptor, () => stream);
    expect(mostBytes).toBeGreaterThan(MIB);
    expect(mostBytes).toBeLessThanOrEqual(8 * MIB);
    await expectStored(store, large);
  });
});
