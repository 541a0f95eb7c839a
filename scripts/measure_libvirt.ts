/**
 * Measures what the binding to libvirt does over time, on a real libvirtd of its own (as root), and says whether it
 * keeps its promises. Exit code 1 when it does not.
 *
 *     deno task measure-libvirt [CYCLES [RESTARTS [FROZEN_SECONDS]]]
 */
import process from "node:process";

import { measureCycles, measureFrozen, measureRestarts } from "../test/support/libvirt_measures.ts";

const [cycles = 10_000, restarts = 40, frozenSeconds = 20] = process.argv.slice(2).map(Number);
const broken: string[] = [];

function promise(isKept: boolean, text: string): void {
  if (!isKept) broken.push(text);
}

const held = await measureCycles(cycles);
console.log("connect, define, undefine:", JSON.stringify(held));
promise(held.late.descriptors <= held.early.descriptors, "no descriptor is left by a cycle");
promise(held.late.threads < held.early.threads + 8, "no thread is left by a cycle");
promise(held.late.rssMib - held.early.rssMib < 32, "memory does not grow with the cycles");

const restarted = await measureRestarts(restarts);
console.log("libvirtd killed and restarted:", JSON.stringify(restarted));
promise(restarted.reconnectedMs.max < 5_000, "connected again within 5 s");
promise(restarted.mostQemus <= 1, "no machine is started twice");
promise(restarted.orphans === 0, "no QEMU is left that libvirt does not know");

const frozen = await measureFrozen(frozenSeconds * 1_000);
console.log("libvirtd frozen, registry silent:", JSON.stringify(frozen));
promise(frozen.delayMs.p99 < 20, "the main thread's delay stays under 20 ms (p99)");

for (const text of broken) console.error(`broken: ${text}`);
process.exit(broken.length > 0 ? 1 : 0);
