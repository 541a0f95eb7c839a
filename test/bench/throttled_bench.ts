import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { benchScript, freshDirectory, MIB, type Place } from "./bench_place.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, ratios } from "./report.ts";

type Served = { readonly host: string; readonly descriptors: readonly Descriptor[] };

/** A registry that gives each connection only so much. */
export async function throttled({ directory, scale }: Place): Promise<PartReport> {
  const { throttledBytes, paceBytesPerSecond, rounds } = scale;
  const [program = "", ...args] =
    benchScript("large_blob_server.ts", [String(paceBytesPerSecond), String(throttledBytes)]).argv;
  const server = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(server, "exit");
  try {
    const { host, descriptors } = await served(server.stdout);
    const url = `http://${host}/v2/os/demo/blobs/${descriptors[0]?.digest}`;
    const root = join(directory, "root");
    const peaks: number[] = [];
    const values = await inTurns({
      "curl": async () => (await runToEnd({ argv: ["curl", "-sfo", join(directory, "curl"), url] })).seconds,
      "bootshim's transfer": async () => {
        await freshDirectory(root);
        const pull = benchScript("pull_script.ts", [host, root, JSON.stringify(descriptors)]);
        const { seconds, peakMib } = await runToEnd(pull);
        peaks.push(peakMib);
        await rm(root, { recursive: true });
        return seconds;
      },
    }, Math.min(rounds, 3));
    return {
      name: `${throttledBytes / MIB} MiB at ${paceBytesPerSecond / 1e6} MB/s for each connection`,
      measures: Object.entries(values).map(([name, values]) => ({ name, unit: "s", values })),
      ratios: [
        { name: "curl / bootshim", values: ratios(values["curl"], values["bootshim's transfer"]) },
        { name: "memory at the most", values: [Math.max(...peaks)], unit: "MiB", atMost: 200 },
      ],
      notes: [],
    };
  } finally {
    server.kill("SIGTERM");
    await exited;
  }
}

async function served(stdout: NodeJS.ReadableStream): Promise<Served> {
  for await (const line of createInterface({ input: stdout })) return JSON.parse(line);
  throw new Error("the throttling server ended without a word");
}
