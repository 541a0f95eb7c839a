/**
 * Measures what the binding to libvirt does over time, on a real libvirtd of its own (as root), and says whether it
 * keeps its promises: half of the restarts are kills. Exit code 1 when it does not, 64 for counts that are none.
 *
 *     deno task measure-libvirt [CYCLES [RESTARTS [FROZEN_SECONDS]]]
 */
import process from "node:process";

import { measureCycles, measureFrozen, measureRestarts } from "../test/support/libvirt_measures.ts";
import { brokenPromises } from "../test/support/libvirt_promises.ts";

const counts = process.argv.slice(2).map(Number);
if (counts.length > 3 || !counts.every((count) => Number.isSafeInteger(count) && count > 0)) {
  console.error("Cannot measure: expected CYCLES, RESTARTS and FROZEN_SECONDS, all positive integers");
  process.exit(64);
}
const [cycles = 10_000, restarts = 40, frozenSeconds = 20] = counts;

const held = await measureCycles(cycles);
console.log("connect, define, undefine:", JSON.stringify(held));
const restarted = await measureRestarts(restarts);
console.log("libvirtd killed and restarted:", JSON.stringify(restarted));
const frozen = await measureFrozen(frozenSeconds * 1_000);
console.log("libvirtd frozen, registry silent:", JSON.stringify(frozen));

const broken = brokenPromises({ held, restarted, frozen });
for (const text of broken) console.error(`broken: ${text}`);
process.exit(broken.length > 0 ? 1 : 0);
