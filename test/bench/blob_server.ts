import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { benchScript, bootshim, freshDirectory } from "./bench_place.ts";
import { type Finished, runToEnd } from "./measure.ts";

export type BlobServer = { readonly host: string; readonly descriptors: readonly Descriptor[] };

const pulledLine = z.looseObject({ seconds: z.number(), peakMib: z.number(), loopDelayP99Ms: z.number() });
export type Pulled = z.infer<typeof pulledLine>;

/** Runs `body` with a registry of blobs of these sizes, each connection at a pace; 0: as fast as it can. */
export async function withBlobServer<T>(
  { paceBytesPerSecond, sizesBytes }: {
    readonly paceBytesPerSecond: number;
    readonly sizesBytes: readonly number[];
  },
  body: (server: BlobServer) => Promise<T>,
): Promise<T> {
  const [program = "", ...args] =
    benchScript("large_blob_server.ts", [paceBytesPerSecond, ...sizesBytes].map(String)).argv;
  const server = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(server, "exit");
  try {
    return await body(await served(server.stdout));
  } finally {
    server.kill("SIGTERM");
    await exited;
  }
}

async function served(stdout: NodeJS.ReadableStream): Promise<BlobServer> {
  for await (const line of createInterface({ input: stdout })) return JSON.parse(line);
  throw new Error("the server of blobs ended without a word");
}

/** Pulls one of its images into an empty cache, by the command; what came is removed again. */
export async function pullImage(
  { host }: BlobServer,
  { directory, number = 0, connections }: {
    readonly directory: string;
    readonly number?: number;
    /** At most so many; as many as pay when left out. */
    readonly connections?: number;
  },
): Promise<Finished> {
  const root = await freshDirectory(join(directory, "root"));
  const config = join(directory, "config.toml");
  await writeFile(
    config,
    connections === undefined ? "" : `[registry]\nconnections_per_layer = ${connections}\n`,
  );
  const { argv, environment } = bootshim(root, ["pull", `${host}/os/demo:${number}`, "--quiet"]);
  const finished = await runToEnd({ argv, environment: { ...environment, BOOTSHIM_CONFIG: config } });
  await rm(root, { recursive: true });
  return finished;
}

/** Brings all of its blobs into a store, at once, in a process of its own; what came is removed again. */
export async function pullAll(
  { host, descriptors }: BlobServer,
  { directory }: { readonly directory: string },
): Promise<Pulled> {
  const root = await freshDirectory(join(directory, "root"));
  const script = benchScript("pull_script.ts", [
    host,
    root,
    JSON.stringify(descriptors),
  ]);
  const { stdout } = await runToEnd(script);
  await rm(root, { recursive: true });
  return pulledLine.parse(JSON.parse(stdout));
}
