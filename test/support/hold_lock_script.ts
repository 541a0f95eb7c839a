/** Child of a test: holds a lock until it is killed, and says when it has it. Arguments: PATH exclusive|shared. */
import { withLock } from "../../src/host/flock.ts";

const [path = "", mode] = process.argv.slice(2);
await withLock(path, { mode: mode === "shared" ? "shared" : "exclusive", timeoutMs: 1000 }, async () => {
  console.log("locked");
  await new Promise((resolve) => setTimeout(resolve, 60_000));
});
