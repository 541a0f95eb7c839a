import { execFileSync } from "node:child_process";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content_store.ts";
import { effectiveUserId, nodeFileSystem } from "../../../src/host/file_system.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "../../support/blobs.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { contentOf } from "../../support/streams.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const root = () => join(temporary(), "root");
const open = () => ContentStore.open({ rootDirectory: root(), groupId: null });

/** Tests that damage the cache on purpose say so. */
let isDamaged = false;
afterEach(() => {
  if (!isDamaged) expect(layoutProblems(root())).toEqual([]);
  isDamaged = false;
});

async function storeWith(blob: Blob): Promise<ContentStore> {
  const store = await open();
  await store.ingest(blob.descriptor, contentOf(blob.bytes));
  return store;
}

describe("ContentStore.open", () => {
  it("makes the layout with its parents, whatever the umask, and takes it again", async () => {
    const rootDirectory = join(temporary(), "a", "b", "root");
    const before = process.umask(0);
    try {
      await ContentStore.open({ rootDirectory, groupId: null });
      await ContentStore.open({ rootDirectory, groupId: null });
    } finally {
      process.umask(before);
    }
    expect(layoutProblems(rootDirectory)).toEqual([]);
    await open();
  });

  it("opens once for many at the same time", async () => {
    const stores = await Promise.all(Array.from({ length: 10 }, open));
    expect(await Promise.all(stores.map((store) => store.references()))).toEqual(Array(10).fill([]));
  });

  it("refuses a root in other use and leaves its mode, but takes a fresh file system", async () => {
    isDamaged = true;
    await mkdir(join(root(), "lost+found"), { recursive: true });
    await chmod(root(), 0o755);
    await writeFile(join(root(), "bin"), "");
    expect(await codeOf(open())).toBe("CACHE_LAYOUT_INVALID");
    expect([(await lstat(root())).mode & 0o777, (await readdir(root())).sort()]).toEqual([0o755, [
      "bin",
      "lost+found",
    ]]);
    await unlink(join(root(), "bin"));
    await open();
    expect(layoutProblems(root())).toEqual([]);
  });

  it("DC09 refuses a root that is a link", async () => {
    isDamaged = true;
    await mkdir(join(temporary(), "target"), { mode: 0o700 });
    await symlink(join(temporary(), "target"), root());
    expect(await codeOf(open())).toBe("CACHE_LAYOUT_INVALID");
    expect(await readdir(join(temporary(), "target"))).toEqual([]);
  });

  it.each(["images", "images/blobs", "images/blobs/sha256", "ingest", "locks"])(
    "DC09 refuses when %s is a link or writable by others",
    async (name) => {
      isDamaged = true;
      await open();
      await chmod(join(root(), name), 0o777);
      expect(await codeOf(open())).toBe("CACHE_LAYOUT_INVALID");
      await rm(join(root(), name), { recursive: true });
      await symlink(temporary(), join(root(), name));
      expect(await codeOf(open())).toBe("CACHE_LAYOUT_INVALID");
    },
  );

  it.each([
    [
      "DC29 a newer version",
      '{"imageLayoutVersion":"2.0.0"}',
      'its layout version is "2.0.0", must be "1.0.0"',
    ],
    ["DC04 an empty file", "", "it is not a UTF-8 JSON document"],
    ["DC04 another document", "[]", "document: Invalid input: expected object, received array"],
  ])("refuses %s as oci-layout and leaves everything", async (_case, text, why) => {
    isDamaged = true;
    const blob = randomBlob(10);
    const store = await storeWith(blob);
    const path = join(root(), "images", "oci-layout");
    await writeFile(path, text);
    const error = await failureOf(open());
    expect([error.code, error.message, error.details]).toEqual([
      "CACHE_LAYOUT_INVALID",
      `Cannot use cache "${path}": ${why}`,
      {
        path,
        remedy: "put the file back from a backup, or move the directory away and pull again",
      },
    ]);
    expect(await readFile(path, "utf8")).toBe(text);
    expect(new Uint8Array(await readFile(store.blobPath(blob.descriptor.digest)))).toEqual(blob.bytes);
  });

  it.each(["oci-layout", "index.json"])(
    "DC04 makes a missing %s only when there is no blob",
    async (name) => {
      await open();
      if (name === "oci-layout") await unlink(join(root(), "images", "index.json"));
      await unlink(join(root(), "images", name));
      const blob = randomBlob(10);
      await storeWith(blob);
      const before = await readFile(join(root(), "images", name), "utf8");
      await unlink(join(root(), "images", name));
      expect(await codeOf(open())).toBe("CACHE_LAYOUT_INVALID");
      await writeFile(join(root(), "images", name), before, { mode: 0o600 });
    },
  );

  it("DC21 removes what nobody can continue, whoever is at work, and leaves what somebody works on", async () => {
    const store = await open();
    const leftover = join(root(), "ingest", "sha256-0.dead");
    await writeFile(leftover, "half");
    const blob = randomBlob(10);
    let whileRunning: string[] = [];
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        await open();
        whileRunning = await readdir(join(root(), "ingest"));
        controller.enqueue(blob.bytes);
        controller.close();
      },
    }, { highWaterMark: 0 });
    await store.ingest(blob.descriptor, () => stream);
    expect(whileRunning.map((name) => name.slice(72)).sort()).toEqual(["json", "partial"]);
    await open();
    expect(await readdir(join(root(), "ingest"))).toEqual([]);
  });
});

describe("ContentStore.ingest", () => {
  const MIB = 1024 * 1024;

  it.each([0, 1, 4095, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])(
    "stores a blob of %i bytes under its digest",
    async (sizeBytes) => {
      const blob = randomBlob(sizeBytes);
      const store = await open();
      const done: number[] = [];
      await store.ingest(blob.descriptor, contentOf(blob.bytes, 700_001), {
        onProgress: (bytes) => done.push(bytes),
      });
      expect(new Uint8Array(await readFile(await store.locateBlob(blob.descriptor)))).toEqual(blob.bytes);
      expect(done.at(-1) ?? 0).toBe(sizeBytes);
      expect(done).toEqual(done.toSorted((a, b) => a - b));
    },
  );

  it("syncs the blob, then names it, then syncs the name", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const store = await ContentStore.open({ rootDirectory: root(), groupId: null, fileSystem });
    const blob = randomBlob(5000);
    const before = fileSystem.operations.length;
    await store.ingest(blob.descriptor, contentOf(blob.bytes));
    const transfer = `${root()}/ingest/sha256-${blob.descriptor.digest.slice(7)}`;
    const steps = fileSystem.operations.slice(before).filter((operation) =>
      /^(?:write|chmod|sync|rename)/.test(operation) && !operation.includes("/verdicts/")
    )
      .map((operation) => operation.replace(transfer, "TRANSFER"));
    expect(steps).toEqual([
      "write TRANSFER.json",
      "write TRANSFER.partial",
      "chmod TRANSFER.partial",
      "sync TRANSFER.partial",
      "rename TRANSFER.partial",
      `sync ${root()}/images/blobs/sha256`,
    ]);
  });

  it("HM06 stores a sha512 blob under blobs/sha512", async () => {
    const blob = blobOf(randomBlob(5000).bytes, { algorithm: "sha512" });
    const store = await storeWith(blob);
    expect(store.blobPath(blob.descriptor.digest)).toBe(
      join(root(), "images/blobs/sha512", blob.descriptor.digest.slice(7)),
    );
    expect(await store.hasBlob(blob.descriptor)).toBe(true);
  });

  it("takes what is there already without asking the source", async () => {
    const blob = randomBlob(5000);
    const store = await storeWith(blob);
    const inode = (await lstat(store.blobPath(blob.descriptor.digest))).ino;
    const again = contentOf(blob.bytes);
    await store.ingest(blob.descriptor, again);
    expect([again.openedAt, (await lstat(store.blobPath(blob.descriptor.digest))).ino]).toEqual([[], inode]);
  });

  const whole = randomBlob(2 * MIB + 100);
  const { digest, sizeBytes } = whole.descriptor;
  const flipped = Uint8Array.from(whole.bytes, (byte, i) => i === MIB ? byte ^ 1 : byte);
  it.each<[string, Descriptor, Uint8Array, string, string]>([
    [
      "HM08 one byte short",
      whole.descriptor,
      whole.bytes.slice(1),
      "CONTENT_SIZE_MISMATCH",
      `received ${sizeBytes - 1} bytes, descriptor says ${sizeBytes} bytes`,
    ],
    [
      "HM08 one byte long",
      { ...whole.descriptor, sizeBytes: sizeBytes - 1 },
      whole.bytes,
      "CONTENT_SIZE_MISMATCH",
      `received more than ${sizeBytes - 1} bytes, descriptor says ${sizeBytes - 1} bytes`,
    ],
    [
      "HM08 declared empty",
      { ...whole.descriptor, sizeBytes: 0 },
      whole.bytes,
      "CONTENT_SIZE_MISMATCH",
      "received more than 0 bytes, descriptor says 0 bytes",
    ],
    [
      "nothing at all",
      whole.descriptor,
      new Uint8Array(),
      "CONTENT_SIZE_MISMATCH",
      `received 0 bytes, descriptor says ${sizeBytes} bytes`,
    ],
    [
      "one bit flipped",
      whole.descriptor,
      flipped,
      "CONTENT_DIGEST_MISMATCH",
      `the ${sizeBytes} bytes received hash to "${blobOf(flipped).descriptor.digest}"`,
    ],
  ])("refuses %s and stores nothing", async (_case, descriptor, bytes, code, why) => {
    const store = await open();
    const error = await failureOf(store.ingest(descriptor, contentOf(bytes, 50_000)));
    expect([error.code, error.message]).toEqual([code, `Cannot ingest blob "${digest}": ${why}`]);
    expect(await store.hasBlob(descriptor)).toBe(false);
    expect(await readdir(join(root(), "images/blobs/sha256"))).toEqual([]);
    await store.ingest(whole.descriptor, contentOf(whole.bytes));
    expect(await store.hasBlob(whole.descriptor)).toBe(true);
  });

  it("stops an endless stream one chunk after the declared size", async () => {
    const store = await open();
    let given = 0;
    let cancelled = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(1000).fill(++given)),
      cancel: () => void cancelled++,
    }, { highWaterMark: 0 });
    expect(await codeOf(store.ingest({ ...whole.descriptor, sizeBytes: 10_000 }, () => endless))).toBe(
      "CONTENT_SIZE_MISMATCH",
    );
    expect([given, cancelled]).toEqual([11, 1]);
  });

  it("passes on the stream's own failure and leaves nothing", async () => {
    const store = await open();
    const failure = new Error("connection reset");
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(whole.bytes.slice(0, 100));
        controller.error(failure);
      },
    });
    await expect(store.ingest(whole.descriptor, () => stream)).rejects.toBe(failure);
  });

  it("is cancelled while it waits for the next chunk", async () => {
    const store = await open();
    const abort = new AbortController();
    let cancelled: unknown;
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(whole.bytes.slice(0, 100)),
      cancel: (reason) => {
        cancelled = reason;
      },
    });
    const onProgress = () => void setTimeout(() => abort.abort("enough"), 1);
    const error = await failureOf(
      store.ingest(whole.descriptor, () => stream, { signal: abort.signal, onProgress }),
    );
    expect([error.code, error.cause, cancelled]).toEqual(["CANCELLED", "enough", "enough"]);
  });

  it("DC10 refuses before the first byte what cannot fit, with both numbers", async () => {
    const fileSystem = { ...nodeFileSystem, availableBytes: () => Promise.resolve(1000) };
    const store = await ContentStore.open({ rootDirectory: root(), groupId: null, fileSystem });
    const content = contentOf(whole.bytes);
    const error = await failureOf(store.ingest(whole.descriptor, content));
    expect([error.code, error.details["availableBytes"], error.details["neededBytes"]]).toEqual([
      "NO_SPACE",
      1000,
      sizeBytes,
    ]);
    expect(content.openedAt).toEqual([]);
  });

  it("DC26 keeps zeros as holes", async () => {
    const store = await open();
    const bytes = new Uint8Array(64 * MIB);
    bytes.set(randomBlob(MIB).bytes, 5 * MIB + 4096);
    bytes.set(randomBlob(10).bytes, 40 * MIB + 77);
    const blob = blobOf(bytes);
    await store.ingest(blob.descriptor, contentOf(bytes, 65_537));
    const { size, blocks } = await lstat(store.blobPath(blob.descriptor.digest));
    expect(size).toBe(64 * MIB);
    expect(blocks * 512).toBeLessThanOrEqual(MIB + 64 * 1024);
  });

  it("stores one blob when many bring it at the same time", async () => {
    const store = await open();
    await Promise.all(
      Array.from(
        { length: 8 },
        () => store.ingest(whole.descriptor, contentOf(whole.bytes, 100_000)),
      ),
    );
    expect(await readdir(join(root(), "images/blobs/sha256"))).toEqual([digest.slice(7)]);
  });

  it.runIf(effectiveUserId() === 0)("shares blobs with the group, and puts older ones right", async () => {
    isDamaged = true;
    const blob = randomBlob(100);
    await storeWith(blob);
    const shared = await ContentStore.open({ rootDirectory: root(), groupId: 12345 });
    await shared.locateBlob(blob.descriptor);
    await shared.ingest(whole.descriptor, contentOf(whole.bytes));
    expect(layoutProblems(root(), { groupId: 12345 })).toEqual([]);
  });
});

describe("ContentStore blobs at rest", () => {
  type Damage = [string, (path: string) => Promise<unknown>];
  const damages: Damage[] = [
    ["DC07 truncated", (path) => truncate(path, 99)],
    ["DC07 empty", (path) => truncate(path, 0)],
    ["DC07 longer", (path) => truncate(path, 101)],
    ["DC08 a link", async (path) => {
      await link(path, join(temporary(), "copy"));
      await unlink(path);
      await symlink(join(temporary(), "copy"), path);
    }],
    ["DC08 a FIFO", async (path) => {
      await unlink(path);
      execFileSync("mkfifo", [path]);
    }],
    ["DC08 writable by others", (path) => chmod(path, 0o646)],
  ];
  if (effectiveUserId() === 0) damages.push(["DC08 another user's", (path) => chown(path, 12345, 0)]);

  it.each(damages)("%s: found at use, and replaced by the next ingest", async (_case, damage) => {
    const blob = randomBlob(100);
    const store = await storeWith(blob);
    await damage(store.blobPath(blob.descriptor.digest));
    expect(await store.hasBlob(blob.descriptor)).toBe(false);
    const uses = [
      store.locateBlob(blob.descriptor),
      store.readDocument(blob.descriptor),
      store.blobWindow(blob.descriptor).read(0, 1),
    ];
    expect(await Promise.all(uses.map(codeOf))).toEqual(Array(3).fill("CONTENT_CORRUPT"));
    await store.ingest(blob.descriptor, contentOf(blob.bytes));
    expect((await store.readDocument(blob.descriptor)).bytes).toEqual(blob.bytes);
  });

  it("DC08 a directory is found, and stays for somebody to look at", async () => {
    isDamaged = true;
    const blob = randomBlob(100);
    const store = await open();
    const path = store.blobPath(blob.descriptor.digest);
    await mkdir(path);
    expect(await codeOf(store.locateBlob(blob.descriptor))).toBe("CONTENT_CORRUPT");
    const error = await failureOf(store.ingest(blob.descriptor, contentOf(blob.bytes)));
    expect([error.code, error.details["errno"]]).toEqual(["IO_ERROR", "EISDIR"]);
    expect(await readdir(join(root(), "ingest"))).toEqual([]);
  });

  it("a changed bit is found when the document is read", async () => {
    isDamaged = true;
    const document = randomManifest();
    const store = await open();
    await store.ingestBytes(document);
    expect(await store.readDocument(document.descriptor)).toEqual(document);
    const path = store.blobPath(document.descriptor.digest);
    await chmod(path, 0o600);
    await writeFile(path, document.bytes.map((byte, i) => i === 20 ? byte ^ 1 : byte));
    expect(await failureOf(store.readDocument(document.descriptor))).toMatchObject({
      code: "CONTENT_CORRUPT",
      message:
        `Cannot use blob "${document.descriptor.digest}" at "${path}": its bytes are not what its name says`,
      details: { remedy: "pull the image again, which replaces the blob" },
    });
  });

  it("readDocument refuses more than 4 MiB unread, and says what is missing", async () => {
    const store = await open();
    const { descriptor } = randomBlob(1);
    expect(await codeOf(store.readDocument({ ...descriptor, sizeBytes: 4 * 1024 * 1024 + 1 }))).toBe(
      "MANIFEST_TOO_LARGE",
    );
    expect(await codeOf(store.readDocument(descriptor))).toBe("IMAGE_NOT_FOUND");
    expect(await codeOf(store.locateBlob(descriptor))).toBe("IMAGE_NOT_FOUND");
  });

  it("blobWindow reads inside the blob only", async () => {
    const blob = randomBlob(1000);
    const window = (await storeWith(blob)).blobWindow(blob.descriptor);
    expect(window.sizeBytes).toBe(1000);
    expect(await window.read(100, 50)).toEqual(blob.bytes.slice(100, 150));
    expect(await window.read(990, 50)).toEqual(blob.bytes.slice(990));
    expect(await window.read(2000, 50)).toEqual(new Uint8Array());
  });

  it("tells absolute paths", async () => {
    const { descriptor } = randomBlob(1);
    const store = await open();
    expect(store.blobPath(descriptor.digest)).toBe(
      join(root(), "images/blobs/sha256", descriptor.digest.slice(7)),
    );
    expect(store.layoutDirectory).toBe(join(root(), "images"));
  });

  it("DC32 warns once when directories cannot be synced", async () => {
    const warnings: string[] = [];
    const noSync = Object.assign(new Error("no"), { code: "EINVAL" });
    const fileSystem = {
      ...nodeFileSystem,
      open: async (...args: Parameters<typeof nodeFileSystem.open>) => {
        const file = await nodeFileSystem.open(...args);
        const isDirectory = (await file.status()).kind === "directory";
        return { ...file, sync: () => isDirectory ? Promise.reject(noSync) : file.sync() };
      },
    };
    const store = await ContentStore.open({
      rootDirectory: root(),
      groupId: null,
      fileSystem,
      onWarning: (text) => warnings.push(text),
    });
    for (const blob of [randomBlob(1), randomBlob(2)]) {
      await store.ingest(blob.descriptor, contentOf(blob.bytes));
    }
    expect(warnings).toEqual([
      `The file system of "${root()}" cannot sync directories: a power loss may undo the last change`,
    ]);
  });
});
