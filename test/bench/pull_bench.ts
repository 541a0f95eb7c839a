import { existsSync, statSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { freemem } from "node:os";
import { join } from "node:path";
import {
  bootshim,
  freshDirectory,
  makeGuestPart,
  MIB,
  type Place,
  publishImage,
  writeFileSystem,
  writeNoise,
} from "./bench_place.ts";
import { inTurns, runToEnd, Unavailable } from "./measure.ts";
import { type Measure, type PartReport, type Ratio, ratios } from "./report.ts";

type Pull = {
  readonly layers: Readonly<Record<string, string>>;
  /** The layer that the floor is of: all the others are small. */
  readonly large: string;
  readonly rounds: number;
  readonly isSparse: boolean;
};

/** A GiB that does not compress, in one layer: to disk, and to memory. */
export async function pullDense(place: Place): Promise<PartReport> {
  const { scale: { blobBytes, rounds }, directory } = place;
  const large = join(directory, "disk.raw");
  await writeNoise(large, blobBytes);
  const name = `cold pull, ${blobBytes / MIB} MiB of noise in one layer`;
  return await pull(place, name, { layers: { rootfs: large }, large, rounds, isSparse: false });
}

/** A disk whose file system is mostly empty, with kernel and initramfs. */
export async function pullSparse(place: Place): Promise<PartReport> {
  const { scale: { diskBytes, diskDataBytes, rounds }, directory } = place;
  const large = join(directory, "disk.raw");
  await writeFileSystem(large, { sizeBytes: diskBytes, dataBytes: diskDataBytes });
  const layers = {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
    rootfs: large,
  };
  const name = `cold pull, disk of ${diskBytes / MIB} MiB with ${diskDataBytes / MIB} MiB of data`;
  return await pull(place, name, { layers, large, rounds: Math.min(rounds, 3), isSparse: true });
}

async function pull(
  place: Place,
  name: string,
  { layers, large, rounds, isSparse }: Pull,
): Promise<PartReport> {
  const { directory } = place;
  const registry = await publishImage(place, layers);
  const memory = existsSync("/dev/shm") ? await mkdtemp("/dev/shm/bootshim-bench-") : undefined;
  const peaks: number[] = [];
  let allocated = 0;
  const notes: string[] = [];
  try {
    const digest = (await runToEnd({ argv: ["openssl", "dgst", "-sha256", "-r", large] })).stdout.slice(
      0,
      64,
    );
    const url = `http://${registry.host}/v2/bench/os/blobs/sha256:${digest}`;
    const into = async (root: string) => {
      await freshDirectory(root);
      const { seconds, peakMib } = await runToEnd(bootshim(root, ["pull", registry.name, "--quiet"]));
      peaks.push(peakMib);
      allocated = allocatedIn(join(root, "images/blobs/sha256", digest));
      await rm(root, { recursive: true });
      return seconds;
    };
    const subjects = {
      "curl and fsync": () => timed(directory, ["sh", "-c", 'curl -sfo curl "$0" && sync curl', url], "curl"),
      "sha-256": async () => (await runToEnd({ argv: ["openssl", "dgst", "-sha256", large] })).seconds,
      "bootshim pull": () => into(join(directory, "root")),
      ...(memory === undefined ? {} : { "bootshim pull, to memory": () => into(join(memory, "root")) }),
      "skopeo copy": () =>
        timed(directory, [
          "skopeo",
          "copy",
          "--quiet",
          "--insecure-policy",
          "--src-tls-verify=false",
          `docker://${registry.name}`,
          "oci:skopeo:1",
        ], "skopeo"),
    };
    const usable = await usableOf(subjects, notes);
    // Nothing is cold for one and warm for another: what the registry reads is in the page cache after the first.
    const values = await inTurns(usable, rounds, () => warmMemory(memory ?? directory, statSync(large).size));
    return {
      name,
      measures: [
        ...Object.entries(values).map(([name, values]): Measure => ({ name, unit: "s", values })),
        { name: "bootshim pull, memory at the most", unit: "MiB", values: peaks },
      ],
      ratios: compare(values, { isSparse, peaks, dataShare: allocated / allocatedIn(large) }),
      notes,
    };
  } finally {
    await registry.stop();
    if (memory !== undefined) await rm(memory, { recursive: true, force: true });
  }
}

type Values = Readonly<Record<string, readonly number[]>>;

function compare(
  values: Values,
  { isSparse, peaks, dataShare }: { isSparse: boolean; peaks: readonly number[]; dataShare: number },
): Ratio[] {
  const ours = values["bootshim pull"] ?? [];
  const { curl = [], sha = [], skopeo = [] } = {
    curl: values["curl and fsync"],
    sha: values["sha-256"],
    skopeo: values["skopeo copy"],
  };
  const floor = sha.map((seconds, round) => Math.max(seconds, curl[round] ?? 0));
  const inMemory = values["bootshim pull, to memory"];
  return [
    isSparse
      ? { name: "pull / hashing the disk", values: ratios(ours, sha), atMost: 1.3 }
      : { name: "pull / the longer of curl and sha-256", values: ratios(ours, floor), atMost: 1.3 },
    ...(inMemory ? [{ name: "pull to memory / sha-256", values: ratios(inMemory, sha) }] : []),
    ...(isSparse ? [{ name: "pull / curl and fsync", values: ratios(ours, curl) }] : []),
    ...(skopeo.length > 0
      ? [{ name: "skopeo copy / pull", values: ratios(skopeo, ours), ...(isSparse ? {} : { atLeast: 3 }) }]
      : []),
    ...(isSparse ? [{ name: "allocated / data", values: [dataShare], atMost: 1.05 }] : []),
    { name: "memory at the most", values: [Math.max(...peaks)], unit: "MiB", atMost: 200 },
  ];
}

/** Besides what it writes, a subject takes this for itself. */
const OWN_BYTES = 256 * MIB;

/**
 * Takes as much memory as a subject will, and frees it. A virtual machine gives memory that is free for some seconds back
 * to its host, and whoever takes it next waits for it: from 0.15 ms a MiB on a quiet day to 2.4 on a busy one, which is more
 * than most of what is compared here. So a subject was faster when it came after one that had just freed a GiB. Now each
 * finds the same amount just freed, and nothing left to be written by the one before.
 */
async function warmMemory(directory: string, sizeBytes: number): Promise<void> {
  const path = join(directory, "warm");
  const file = await open(path, "w");
  try {
    const bytes = new Uint8Array(MIB).fill(1);
    // Not so much that anybody's memory is taken for it.
    const warmBytes = Math.min(sizeBytes + OWN_BYTES, freemem() / 4);
    for (let offset = 0; offset < warmBytes; offset += MIB) await file.write(bytes);
  } finally {
    await file.close();
    await rm(path);
  }
  await runToEnd({ argv: ["sync"] });
}

/** Leaves out what cannot be run here. */
async function usableOf<T extends Record<string, () => Promise<number>>>(subjects: T, notes: string[]) {
  const usable: Record<string, () => Promise<number>> = {};
  for (const [name, run] of Object.entries(subjects)) {
    const program = name === "curl and fsync" ? "curl" : name === "skopeo copy" ? "skopeo" : "openssl";
    try {
      await runToEnd({ argv: ["sh", "-c", `command -v ${program}`] });
      usable[name] = run;
    } catch {
      notes.push(`without "${name}": ${program} is not installed`);
    }
  }
  if (!usable["sha-256"]) throw new Unavailable("openssl is not installed");
  return usable;
}

/** How long a command takes that makes `made`, which is removed again. */
async function timed(directory: string, argv: readonly string[], made: string): Promise<number> {
  const { seconds } = await runToEnd({ argv: ["sh", "-c", 'cd "$0" && exec "$@"', directory, ...argv] });
  await rm(join(directory, made), { recursive: true });
  return seconds;
}

const BLOCK_BYTES = 512;

function allocatedIn(path: string): number {
  return statSync(path).blocks * BLOCK_BYTES;
}
