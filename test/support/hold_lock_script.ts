/**
 * Child of a test: holds a lock until it is killed, and says when it has it. Arguments: PATH exclusive|shared, and
 * optionally SECONDS for which a child of its own, started while it holds the lock, outlives it; it says that child's
 * process id.
 */
import { spawn } from "node:child_process";
import { withLock } from "../../src/host/flock.ts";

const [path = "", mode, seconds] = process.argv.slice(2);
await withLock(path, { mode: mode === "shared" ? "shared" : "exclusive", timeoutMs: 1000 }, async () => {
  // Beside the three that it is given, a child inherits what is not close-on-exec.
  const pid = seconds ? spawn("sleep", [seconds], { stdio: "ignore", detached: true }).pid : "";
  console.log(`locked ${pid}`);
  await new Promise((resolve) => setTimeout(resolve, 60_000));
});
