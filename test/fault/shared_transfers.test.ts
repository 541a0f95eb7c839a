/** One transfer for a blob on a host: several stores and processes that want the same, and what becomes of them. */
import { unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ContentStore } from "../../src/content/content_store.ts";
import { type ErrorCode, ShimError } from "../../src/errors.ts";
import { type Blob, randomBlob } from "../support/blobs.ts";
import { type ChildScript, lineOf, startScript } from "../support/child_script.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { randomWord } from "../support/random_word.ts";
import { contentOf } from "../support/streams.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const MIB = 1024 * 1024;
/** Each takes five sets of locks; CO06 asks for 10,000, which is 2,000 rounds. */
const ROUNDS = Number(process.env["BOOTSHIM_LOCK_ROUNDS"] ?? "100");
const root = () => join(temporary(), "root");
const open = () => ContentStore.open({ rootDirectory: root(), groupId: null });

/** Gives the first half, then what `rest` decides: bytes to go on with, or a failure. */
function halfThen({ bytes }: Blob, rest: () => Promise<Uint8Array>): () => ReadableStream<Uint8Array> {
  const half = bytes.length >> 1;
  return () => {
    let given = 0;
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        given += 1;
        if (given === 1) controller.enqueue(bytes.subarray(0, half));
        else if (given === 2) controller.enqueue((await rest()).subarray(half));
        else controller.close();
      },
    }, { highWaterMark: 0 });
  };
}

/** A child process that has brought half of a blob, and hangs. */
async function hangingChild(blob: Blob): Promise<ChildScript> {
  const file = join(temporary(), randomWord());
  await writeFile(file, blob.bytes);
  const giveBytes = blob.bytes.length >> 1;
  const task = { rootDirectory: root(), digest: blob.descriptor.digest, file, giveBytes };
  const child = startScript("ingest_script.ts", [JSON.stringify(task)]);
  await lineOf(child, new RegExp(`^at ${giveBytes}$`));
  return child;
}

describe("a leader and those who wait for it", () => {
  it("CO01 many stores that want a blob ask the source once, and see how far it has come", async () => {
    const blob = randomBlob(8 * MIB);
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const seen: number[][] = Array.from({ length: 10 }, () => []);
    const stores = await Promise.all(Array.from({ length: 10 }, open));
    let opened = 0;
    const content = halfThen(blob, () => promise);
    const ingests = stores.map((store, i) =>
      store.ingest(blob.descriptor, () => {
        opened += 1;
        return content();
      }, {
        onProgress: (doneBytes) => {
          seen[i]?.push(doneBytes);
          // All but the leader see it on disk, which is as good as a signal that they wait.
          if (seen.every((each) => each.some((bytes) => bytes >= 3 * MIB))) resolve(blob.bytes);
        },
      })
    );
    const received = (await Promise.all(ingests)).map(({ receivedBytes }) => receivedBytes);
    expect(opened).toBe(1);
    expect(received.toSorted((a, b) => b - a)).toEqual([blob.bytes.length, ...Array(9).fill(0)]);
    expect(layoutProblems(root())).toEqual([]);
  });

  it("CO02 a killed leader's blob is continued by one who waits", async () => {
    const blob = randomBlob(8 * MIB);
    const leader = await hangingChild(blob);
    const content = contentOf(blob.bytes);
    const isWaiting = Promise.withResolvers<void>();
    const waiter = (await open()).ingest(blob.descriptor, content, { onProgress: () => isWaiting.resolve() });
    await isWaiting.promise;
    expect(content.openedAt).toEqual([]);
    leader.kill("SIGKILL");
    await leader.exited;
    const { receivedBytes } = await waiter;
    expect(content.openedAt).toHaveLength(1);
    expect(receivedBytes).toBeLessThanOrEqual(blob.bytes.length / 2 + 2 * MIB);
    expect(layoutProblems(root())).toEqual([]);
  });

  const CODES: ErrorCode[] = ["REGISTRY_NOT_FOUND", "CONTENT_DIGEST_MISMATCH", "NO_SPACE"];
  it.each(CODES)("CO03 who waited through a %s gets the same, and nobody asks again", async (code) => {
    const blob = randomBlob(4 * MIB);
    const source = randomWord();
    const word = randomWord();
    const stores = await Promise.all(Array.from({ length: 8 }, open));
    const all = Promise.withResolvers<void>();
    let opened = 0;
    const failing = () => {
      opened += 1;
      return halfThen(blob, async () => {
        await all.promise;
        throw new ShimError(code, `Cannot fetch: ${word}`, { details: { word } });
      })();
    };
    const informed = new Set<number>();
    const failures = await Promise.all(stores.map((store, i) => {
      const onProgress = () => void (informed.add(i).size === stores.length && all.resolve());
      return failureOf(store.ingest(blob.descriptor, failing, { source, onProgress }));
    }));
    expect(opened).toBe(1);
    for (const { code: actual, message, details } of failures) {
      expect([actual, message, details]).toEqual([code, `Cannot fetch: ${word}`, { word }]);
    }
    // A refusal says nothing against the bytes that came before it.
    expect(layoutProblems(root(), { partials: code === "REGISTRY_NOT_FOUND" ? 1 : 0 })).toEqual([]);
  });

  it.each([undefined, randomWord()])(
    "CO03 who waits for another source (%s) asks it all the same, for what is missing",
    async (other) => {
      const blob = randomBlob(4 * MIB);
      const [leader, elsewhere] = await Promise.all([open(), open()]);
      const waits = Promise.withResolvers<void>();
      const begun = Promise.withResolvers<void>();
      const failing = halfThen(blob, async () => {
        await waits.promise;
        throw new ShimError("REGISTRY_DENIED", "Cannot fetch: the test says so");
      });
      const led = codeOf(
        leader.ingest(blob.descriptor, failing, { source: randomWord(), onProgress: () => begun.resolve() }),
      );
      await begun.promise;
      const content = contentOf(blob.bytes);
      const onProgress = () => waits.resolve();
      await elsewhere.ingest(blob.descriptor, content, { source: other, onProgress });
      expect([await led, content.openedAt]).toEqual(["REGISTRY_DENIED", [blob.bytes.length / 2]]);
      expect(layoutProblems(root())).toEqual([]);
    },
  );

  it("CO03 a failure of before does not count: the next call asks the source", async () => {
    const blob = randomBlob(MIB);
    const store = await open();
    const source = randomWord();
    const lost = () => {
      throw new ShimError("REGISTRY_NOT_FOUND", "Cannot fetch: the test says so");
    };
    expect(await codeOf(store.ingest(blob.descriptor, lost, { source }))).toBe("REGISTRY_NOT_FOUND");
    await store.ingest(blob.descriptor, contentOf(blob.bytes), { source });
    expect(layoutProblems(root())).toEqual([]);
  });

  it("CO04 a waiter that is cancelled goes alone; a cancelled leader's work is continued, or stays as S1", async () => {
    const blob = randomBlob(8 * MIB);
    const [leader, first, second] = await Promise.all([open(), open(), open()]);
    const stop = {
      leader: new AbortController(),
      first: new AbortController(),
      second: new AbortController(),
    };
    const never = () => new Promise<Uint8Array>(() => {});
    const begun = Promise.withResolvers<void>();
    const led = codeOf(leader.ingest(blob.descriptor, halfThen(blob, never), {
      signal: stop.leader.signal,
      onProgress: () => begun.resolve(),
    }));
    await begun.promise;
    const nothing = contentOf(blob.bytes);
    const firstCode = codeOf(first.ingest(blob.descriptor, nothing, {
      signal: stop.first.signal,
      onProgress: () => stop.first.abort(),
    }));
    expect(await firstCode).toBe("CANCELLED");
    expect([nothing.openedAt, layoutProblems(root(), { partials: 1 })]).toEqual([[], []]);

    const openedAt: number[] = [];
    const secondCode = codeOf(second.ingest(blob.descriptor, (startByte) => {
      openedAt.push(startByte);
      stop.second.abort();
      return contentOf(blob.bytes)(startByte);
    }, { signal: stop.second.signal, onProgress: () => stop.leader.abort() }));
    expect(await led).toBe("CANCELLED");
    expect(await secondCode).toBe("CANCELLED");
    expect(openedAt).toEqual([4 * MIB]);
    expect(layoutProblems(root(), { partials: 1 })).toEqual([]);
    await second.ingest(blob.descriptor, contentOf(blob.bytes));
    expect(layoutProblems(root())).toEqual([]);
  });

  it("CO05 CO06 two who want the same blobs in another order never wait for each other", async () => {
    const blobs = [randomBlob(5000), randomBlob(5000), randomBlob(5000)] as const;
    const [x, y, z] = blobs;
    const wishes = [[x, y], [y, x], [z, y, x], [x, z], [y, z]];
    const stores = await Promise.all(wishes.map(open));
    const opened = new Map<string, number>();
    for (let round = 0; round < ROUNDS; round++) {
      opened.clear();
      await Promise.all(wishes.map(async (wish, i) => {
        const descriptors = wish.map((blob) => blob.descriptor);
        await stores[i]?.withMissing(descriptors, {}, async ({ missing, ingest }) => {
          await Promise.all(missing.map((descriptor) =>
            ingest(descriptor, (startByte) => {
              opened.set(descriptor.digest, (opened.get(descriptor.digest) ?? 0) + 1);
              return contentOf(
                blobs.find((each) => each.descriptor === descriptor)?.bytes ?? new Uint8Array(),
              )(
                startByte,
              );
            })
          ));
        });
      }));
      expect([...opened.values()]).toEqual([1, 1, 1]);
      for (const { descriptor } of blobs) await unlink(stores[0]?.blobPath(descriptor.digest) ?? "");
    }
    expect(layoutProblems(root())).toEqual([]);
  });

  it("CO07 a lock file removed under its holder: BUSY, nothing gets its name, the next call succeeds", async () => {
    const blob = randomBlob(MIB);
    const store = await open();
    const path = join(root(), "locks", `blob-${blob.descriptor.digest.replace(":", "-")}`);
    const beforeCommit = () => unlink(path);
    expect(await codeOf(store.ingest(blob.descriptor, contentOf(blob.bytes), { beforeCommit }))).toBe("BUSY");
    expect(await store.hasBlob(blob.descriptor)).toBe(false);
    const content = contentOf(blob.bytes);
    await store.ingest(blob.descriptor, content);
    expect(content.openedAt).toEqual([]);
    expect(layoutProblems(root())).toEqual([]);
  });

  it("CO09 CO19 a stopped leader: LOCK_TIMEOUT for its blob, others are served; it goes on when it is let", async () => {
    const blob = randomBlob(8 * MIB);
    const file = join(temporary(), "bytes");
    await writeFile(file, blob.bytes);
    const store = await open();
    const leader = await hangingChild(blob);
    leader.kill("SIGSTOP");
    try {
      const other = randomBlob(MIB);
      const waiting = failureOf(store.ingest(blob.descriptor, contentOf(blob.bytes), { stallMs: 3000 }));
      await store.ingest(other.descriptor, contentOf(other.bytes));
      const error = await waiting;
      expect([error.code, error.retryable, error.details["stallMs"]]).toEqual(["LOCK_TIMEOUT", true, 3000]);
    } finally {
      leader.kill("SIGCONT");
    }
    expect(layoutProblems(root(), { partials: 1 })).toEqual([]);
    // It lives again: who waits now is not told that it does not, for longer than the time that was too long before.
    const patient = new AbortController();
    setTimeout(() => patient.abort(), 4500);
    const options = { stallMs: 3000, signal: patient.signal };
    expect(await codeOf(store.ingest(blob.descriptor, contentOf(blob.bytes), options))).toBe("CANCELLED");
    leader.kill("SIGKILL");
    await leader.exited;
    await store.ingest(blob.descriptor, contentOf(blob.bytes));
    expect(layoutProblems(root())).toEqual([]);
  });

  it("HM13 a digest that is asked for twice is locked and fetched once", async () => {
    const blob = randomBlob(MIB);
    const content = contentOf(blob.bytes);
    const store = await open();
    await store.withMissing([blob.descriptor, { ...blob.descriptor }], {}, async ({ missing, ingest }) => {
      expect(missing).toHaveLength(1);
      for (const each of missing) await ingest(each, content);
    });
    expect(content.openedAt).toEqual([0]);
    expect(layoutProblems(root())).toEqual([]);
  });
});
