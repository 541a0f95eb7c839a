/**
 * What several connections bring, and what a large pull costs in memory. Prints figures, and exits 1 when one is worse
 * than promised. Arguments: any of `throttled`, `loopback`, `memory`; none: all. `--json FILE` keeps the figures.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Descriptor } from "../../src/image/descriptor.ts";

const MIB = 1024 * 1024;
/** What a bench may take at most. */
const TIMEOUT_MS = 600_000;

/** As the command runs. */
const V8_FLAGS = "--v8-flags=--max-semi-space-size=2";

type Server = { host: string; descriptors: Descriptor[]; stop: () => Promise<void> };
type Pulled = { seconds: number; peakMib: number; loopDelayP99Ms: number; loopDelayMaxMs: number };

function start(script: string, args: readonly string[]) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const runtime = "deno" in process.versions ? ["run", V8_FLAGS, "--allow-all"] : [];
  const child = spawn(process.execPath, [...runtime, path, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
  child.once("exit", () => clearTimeout(timer));
  const closed = once(child, "exit");
  const line = (async () => {
    for await (const said of createInterface({ input: child.stdout })) return said;
    throw new Error(`${script} ended without a word`);
  })();
  return { child, line, closed };
}

async function serve(pace: number, sizes: readonly number[]): Promise<Server> {
  const { child, line, closed } = start("large_blob_server.ts", [pace, ...sizes].map(String));
  const said: Pick<Server, "host" | "descriptors"> = JSON.parse(await line);
  const stop = async () => {
    child.kill("SIGTERM");
    await closed;
  };
  return { ...said, stop };
}

async function pull({ host, descriptors }: Server, limits: object): Promise<Pulled> {
  const root = await mkdtemp(join(tmpdir(), "bootshim-bench-"));
  try {
    const { line, closed } = start("pull_script.ts", [
      host,
      root,
      JSON.stringify(descriptors),
      JSON.stringify(limits),
    ]);
    const pulled: Pulled = JSON.parse(await line);
    await closed;
    return pulled;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

const ONE = { connectionsPerBlob: 1 };
const figures: Record<string, number | boolean> = {};
let isWorse = false;

function tell(name: string, value: number, { unit, isGood }: { unit: string; isGood: boolean }): void {
  figures[name] = value;
  isWorse ||= !isGood;
  console.log(`${isGood ? "ok  " : "MISS"}  ${name}: ${value.toFixed(2)} ${unit}`);
}

/** Several connections where each of them is slow. */
async function throttled(): Promise<void> {
  const server = await serve(20_000_000, [256 * MIB]);
  try {
    const one = await pull(server, ONE);
    const several = await pull(server, {});
    tell("256 MiB at 20 MB/s per connection, over one", one.seconds, { unit: "s", isGood: true });
    tell("256 MiB at 20 MB/s per connection, over several", several.seconds, { unit: "s", isGood: true });
    const ratio = one.seconds / several.seconds;
    tell("so many times faster", ratio, { unit: "x (at least 5)", isGood: ratio >= 5 });
  } finally {
    await server.stop();
  }
}

/** Nothing to gain: it must not cost anything either. Taken in turns, the best of each counts. */
async function loopback(): Promise<void> {
  const server = await serve(0, [1024 * MIB]);
  try {
    const one: number[] = [];
    const several: number[] = [];
    for (let i = 0; i < 4; i += 1) {
      one.push((await pull(server, ONE)).seconds);
      several.push((await pull(server, {})).seconds);
    }
    const ratio = Math.min(...several) / Math.min(...one);
    tell("1 GiB over loopback, one connection", Math.min(...one), { unit: "s", isGood: true });
    tell("1 GiB over loopback, several allowed", Math.min(...several), { unit: "s", isGood: true });
    tell("time with several, of that with one", ratio, { unit: "x (at most 1.1)", isGood: ratio <= 1.1 });
  } finally {
    await server.stop();
  }
}

/** Eight layers at once, one of them 8 GiB; unthrottled, and where several connections fill what they may. */
async function memory(): Promise<void> {
  const runs = [
    ["8 GiB and 7 of 512 MiB at once, unthrottled", 0, [8192, ...Array<number>(7).fill(512)]],
    ["8 of 128 MiB at once at 20 MB/s per connection", 20_000_000, Array<number>(8).fill(128)],
    ["1 GiB at 20 MB/s per connection", 20_000_000, [1024]],
  ] as const;
  for (const [name, pace, sizes] of runs) {
    const server = await serve(pace, sizes.map((size) => size * MIB));
    try {
      const pulled = await pull(server, {});
      tell(`${name}: whole process`, pulled.peakMib, {
        unit: "MiB (below 200)",
        isGood: pulled.peakMib < 200,
      });
      tell(`${name}: time`, pulled.seconds, { unit: "s", isGood: true });
      tell(`${name}: main loop held, 99 of 100`, pulled.loopDelayP99Ms, {
        unit: "ms (below 50)",
        isGood: pulled.loopDelayP99Ms < 50,
      });
    } finally {
      await server.stop();
    }
  }
}

const benches = { throttled, loopback, memory };
const { values, positionals } = parseArgs({
  options: { json: { type: "string" } },
  allowPositionals: true,
});
for (const [name, run] of Object.entries(benches)) {
  if (positionals.length === 0 || positionals.includes(name)) await run();
}
if (values.json !== undefined) await writeFile(values.json, JSON.stringify(figures, null, 2));
process.exit(isWorse ? 1 : 0);
