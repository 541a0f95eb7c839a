import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { findData } from "../../../src/host/data_extent.ts";
import { takeLock, tryLock } from "../../../src/host/flock.ts";
import { countForeignCall, foreignCalls } from "../../../src/host/foreign_calls.ts";
import { isLocked } from "../../../src/host/record_lock.ts";
import { reflink } from "../../../src/host/reflink.ts";
import { lineOf, startScript } from "../../support/child_script.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const sleepMs = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** What the counters grow by. */
async function growth(body: () => unknown) {
  const before = foreignCalls();
  await body();
  const after = foreignCalls();
  return { made: after.made - before.made, slow: after.slow - before.slow };
}

describe("LV18 calls into C on the main thread", () => {
  it("are counted, and those over 5 ms apart, also when they fail", async () => {
    const seen = await growth(() => {
      expect(countForeignCall(() => sleepMs(20))).toBe("timed-out");
      expect(() =>
        countForeignCall(() => {
          sleepMs(20);
          throw new Error("failed");
        })
      ).toThrow("failed");
    });
    expect(seen).toEqual({ made: 2, slow: 2 });
  });

  it("never block: of thousands, at most those are slow whose thread the host took away", async () => {
    const path = join(temporary(), "file");
    await writeFile(path, new Uint8Array(1 << 20));
    const [file, target] = [await open(path, "r+"), await open(join(temporary(), "target"), "w")];
    try {
      // The first of each loads what it needs.
      await isLocked(file.fd);
      const seen = await growth(async () => {
        for (let i = 0; i < 1000; i++) {
          const lock = await tryLock(join(temporary(), "lock"), { mode: "exclusive" });
          await lock?.release();
          await isLocked(file.fd);
          await findData(file.fd, 0);
          await reflink(file.fd, target.fd).catch(() => {});
        }
      });
      expect(seen.made).toBeGreaterThanOrEqual(5000);
      expect(seen.slow).toBeLessThan(seen.made / 50);
    } finally {
      await Promise.all([file.close(), target.close()]);
    }
  });

  it("do not wait for a lock that another process holds: the loop turns until it comes", async () => {
    const path = join(temporary(), "lock");
    const child = startScript("hold_lock_script.ts", [path, "exclusive"]);
    await lineOf(child, /^locked/);
    const taking = takeLock(path, { mode: "exclusive", timeoutMs: 60_000 });
    // Were it blocked, these turns would never come, and nobody would end the holder.
    for (let turns = 0; turns < 100; turns++) await turn();
    child.kill("SIGKILL");
    await child.exited;
    await (await taking).release();
  });
});
