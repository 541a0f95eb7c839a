/** Prepares machines of one image side by side in this process, and says what that took. */
import process from "node:process";
import { prepare } from "../../src/agent/prepare.ts";
import { parseReference } from "../../src/image/reference.ts";
import { openAgent } from "./agent_kit.ts";
import { prepareWish } from "./machine_wish.ts";

const [root = "", name = "", count = "", prefix = "vm"] = process.argv.slice(2);
const context = await openAgent(root);
const reference = parseReference(name);
// The image itself is not what is measured.
await prepare(context, prepareWish(reference, null));
const startMs = performance.now();
const waits = await Promise.all(
  Array.from({ length: Number(count) }, async (_, index) => {
    await prepare(context, prepareWish(reference, { id: `${prefix}-${index}` }));
    return performance.now() - startMs;
  }),
);
const elapsedMs = performance.now() - startMs;
const meanMs = waits.reduce((sum, each) => sum + each, 0) / waits.length;
const peakRssMib = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ elapsedMs, meanMs, worstMs: Math.max(...waits), peakRssMib }));
process.exit();
