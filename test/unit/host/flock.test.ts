import { once } from "node:events";
import { readFile, rename, stat, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nodeFileSystem, type OpenFile } from "../../../src/host/file_system.ts";
import { takeLock, tryLock, waitForLock, withLock } from "../../../src/host/flock.ts";
import { lineOf, startScript } from "../../support/child_script.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

describe("withLock", () => {
  it("runs exclusive bodies one after the other within one process", async () => {
    const path = join(temporary(), "lock");
    let inside = 0;
    let most = 0;
    const body = async () => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 2));
      inside--;
    };
    await Promise.all(
      Array.from({ length: 8 }, () => withLock(path, { mode: "exclusive", timeoutMs: 10_000 }, body)),
    );
    expect(most).toBe(1);
  });

  it("lets shared holders in together, and no exclusive one beside them", async () => {
    const path = join(temporary(), "lock");
    const codes = await withLock(path, { mode: "shared", timeoutMs: 0 }, async () => {
      const second = await withLock(path, { mode: "shared", timeoutMs: 0 }, () => Promise.resolve("shared"));
      return [
        second,
        await codeOf(
          withLock(path, { mode: "exclusive", timeoutMs: 20 }, () => Promise.resolve("exclusive")),
        ),
      ];
    });
    expect(codes).toEqual(["shared", "LOCK_TIMEOUT"]);
  });

  it("excludes another process, and is free again once that one was killed", async () => {
    const path = join(temporary(), "lock");
    const child = startScript("hold_lock_script.ts", [path, "exclusive"]);
    try {
      await once(child.stdout, "data");
      expect(await codeOf(withLock(path, { mode: "shared", timeoutMs: 0 }, () => Promise.resolve()))).toBe(
        "LOCK_TIMEOUT",
      );
    } finally {
      child.kill("SIGKILL");
    }
    await child.exited;
    expect(await withLock(path, { mode: "exclusive", timeoutMs: 0 }, () => Promise.resolve("mine"))).toBe(
      "mine",
    );
  });

  it("CO08 is free when the holder dies, though its children live on", async () => {
    const path = join(temporary(), "lock");
    const child = startScript("hold_lock_script.ts", [path, "exclusive", "30"]);
    const pid = Number((await lineOf(child, /^locked \d+$/)).split(" ")[1]);
    try {
      child.kill("SIGKILL");
      await child.exited;
      process.kill(pid, 0);
      const lock = await tryLock(path, { mode: "exclusive" });
      expect(lock).toBeDefined();
      await lock?.release();
    } finally {
      process.kill(pid, "SIGKILL");
    }
  });

  it("CO07 a lock on a file that was removed meanwhile does not count: the waiter locks the new one", async () => {
    const path = join(temporary(), "lock");
    const first = await takeLock(path, { mode: "exclusive", timeoutMs: 0 });
    const opened = Promise.withResolvers<void>();
    const waiting = waitForLock(path, {
      mode: "exclusive",
      timeoutMs: 60_000,
      isWorthWaiting: () => {
        opened.resolve();
        return Promise.resolve(true);
      },
    });
    await opened.promise;
    expect(await first.isCurrent()).toBe(true);
    await unlink(path);
    expect(await first.isCurrent()).toBe(false);
    await first.release();
    const second = await waiting;
    expect((await second?.file.status())?.inode).toBe((await stat(path)).ino);
    expect(await second?.isCurrent()).toBe(true);
    expect(await tryLock(path, { mode: "exclusive" })).toBeUndefined();
    await writeFile(join(temporary(), "other"), "");
    await rename(join(temporary(), "other"), path);
    expect(await second?.isCurrent()).toBe(false);
    await second?.release();
  });

  it("gives up waiting when it is not worth it any more", async () => {
    const path = join(temporary(), "lock");
    const held = await takeLock(path, { mode: "exclusive", timeoutMs: 0 });
    let asked = 0;
    const isWorthWaiting = () => Promise.resolve(++asked < 3);
    expect(await waitForLock(path, { mode: "shared", timeoutMs: 60_000, isWorthWaiting })).toBeUndefined();
    expect(asked).toBe(3);
    await held.release();
  });

  it("gives up waiting when the signal fires", async () => {
    const path = join(temporary(), "lock");
    const abort = new AbortController();
    const error = await withLock(path, { mode: "exclusive", timeoutMs: 0 }, async () => {
      const waiting = failureOf(
        withLock(
          path,
          { mode: "exclusive", timeoutMs: 60_000, signal: abort.signal },
          () => Promise.resolve(),
        ),
      );
      setTimeout(() => abort.abort(), 5);
      return await waiting;
    });
    expect([error.code, error.message]).toEqual([
      "CANCELLED",
      `Cannot lock "${path}": cancelled while waiting`,
    ]);
  });

  it("keeps the file private and the descriptor close-on-exec", async () => {
    const path = join(temporary(), "lock");
    let file: OpenFile | undefined;
    const fileSystem = {
      ...nodeFileSystem,
      open: async (...args: Parameters<typeof nodeFileSystem.open>) =>
        file = await nodeFileSystem.open(...args),
    };
    const flags = await withLock(
      path,
      { mode: "exclusive", timeoutMs: 0, fileSystem },
      async () => /^flags:\s*([0-7]+)$/m.exec(await readFile(`/proc/self/fdinfo/${file?.fd}`, "utf8"))?.[1],
    );
    expect(Number.parseInt(flags ?? "0", 8) & 0o2000000).toBe(0o2000000);
    expect((await nodeFileSystem.lstat(path)).mode).toBe(0o600);
  });

  it("passes on what the body throws, and lets go of the lock", async () => {
    const path = join(temporary(), "lock");
    const thrown = new Error("from the body");
    await expect(withLock(path, { mode: "exclusive", timeoutMs: 0 }, () => Promise.reject(thrown))).rejects
      .toBe(thrown);
    expect(await withLock(path, { mode: "exclusive", timeoutMs: 0 }, () => Promise.resolve(1))).toBe(1);
  });

  it("says IO_ERROR with path and errno when the file cannot be opened", async () => {
    const path = join(temporary(), "missing", "lock");
    const error = await failureOf(withLock(path, { mode: "shared", timeoutMs: 0 }, () => Promise.resolve()));
    expect([error.code, error.details]).toEqual(["IO_ERROR", { path, errno: "ENOENT" }]);
  });
});
