import { randomBytes } from "node:crypto";
import { access, mkdir, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { extDisk } from "../support/disk_bytes.ts";
import { startRegistryServer } from "../support/registry_server.ts";
import { type Command, runToEnd, Unavailable } from "./measure.ts";

export const MIB = 1024 * 1024;

/** How much of everything. */
export type Scale = {
  readonly rounds: number;
  readonly blobBytes: number;
  readonly diskBytes: number;
  readonly diskDataBytes: number;
  readonly machines: number;
  readonly copies: number;
  readonly images: number;
  readonly prepares: number;
  readonly throttledBytes: number;
  readonly paceBytesPerSecond: number;
  readonly memoryBytes: number;
};

export const SCALES = {
  full: {
    rounds: 5,
    blobBytes: 1024 * MIB,
    diskBytes: 6144 * MIB,
    diskDataBytes: 600 * MIB,
    machines: 200,
    copies: 5,
    images: 10_000,
    prepares: 300,
    throttledBytes: 256 * MIB,
    paceBytesPerSecond: 20_000_000,
    memoryBytes: 8192 * MIB,
  },
  toy: {
    rounds: 1,
    blobBytes: 2 * MIB,
    diskBytes: 32 * MIB,
    diskDataBytes: MIB,
    machines: 2,
    copies: 1,
    images: 20,
    prepares: 3,
    throttledBytes: MIB,
    paceBytesPerSecond: 20_000_000,
    memoryBytes: 64 * MIB,
  },
} as const satisfies Record<string, Scale>;

/** Where a part of the bench works; removed after it. */
export type Place = {
  readonly directory: string;
  readonly scale: Scale;
};

const script = (name: string) => fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url));

/** The command as a user types it, over a cache of its own. */
export function bootshim(root: string, args: readonly string[]): Command {
  return {
    argv: [script("bootshim"), ...args],
    environment: { BOOTSHIM_ROOT: root, BOOTSHIM_CONFIG: "/dev/null" },
  };
}

/** A script of this folder, in the same runtime with the flags of a command (scripts/bootshim). */
export function benchScript(name: string, args: readonly string[]): Command {
  const path = fileURLToPath(new URL(name, import.meta.url));
  const engine = "--max-semi-space-size=1,--heap-growing-percent=80,--disallow-code-generation-from-strings";
  const flags = [`--v8-flags=${engine}`, "--quiet", "--allow-all"];
  return { argv: [script("deno"), "run", ...flags, path, ...args] };
}

/** Noise, but for a beginning like a file system's. */
export async function writeNoise(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, "wx");
  try {
    const head = extDisk({ incompat: 0x40 }, MIB);
    for (let offset = 0; offset < sizeBytes; offset += MIB) {
      const bytes = randomBytes(Math.min(MIB, sizeBytes - offset));
      if (offset === 0) bytes.set(head.subarray(0, 4096));
      await file.write(bytes, 0, bytes.length, offset);
    }
  } finally {
    await file.close();
  }
}

/**
 * A real file system with files of every size in it, as an operating system's disk is: what is free in it are holes, and
 * what is used lies in pieces of a block and more.
 */
export async function writeFileSystem(
  path: string,
  { sizeBytes, dataBytes }: { readonly sizeBytes: number; readonly dataBytes: number },
): Promise<void> {
  await requireProgram("mkfs.ext4");
  const tree = `${path}.tree`;
  await mkdir(tree);
  try {
    let left = dataBytes;
    for (let number = 0; left > 0; number++) {
      // Mostly small, some large: 1 KiB to 4 MiB.
      const fileBytes = Math.min(left, Math.floor(1024 * 4 ** (number % 7 * Math.random())));
      const directory = join(tree, String(number % 50));
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, String(number)), randomBytes(fileBytes));
      left -= fileBytes;
    }
    await runToEnd({ argv: ["mkfs.ext4", "-q", "-d", tree, path, `${sizeBytes / 1024}k`] });
  } finally {
    await rm(tree, { recursive: true });
  }
}

export async function makeGuestPart(
  kind: "kernel" | "initramfs" | "rootfs-ext4",
  path: string,
): Promise<string> {
  await runToEnd({ argv: [script("guest-image"), kind, path] }).catch((error: unknown) => {
    throw new Unavailable(
      `no guest ${kind}: ${error instanceof Error ? error.message.slice(0, 200) : error}`,
    );
  });
  return path;
}

/** Builds an image of these files in a cache, under a name. */
export async function buildImage(root: string, name: string, layers: Readonly<Record<string, string>>) {
  const files = Object.entries(layers).map(([role, path]) => `${role}=${path}`);
  const config = ["arch=amd64", ...files].join(",");
  await runToEnd(bootshim(root, ["build", "--config", config, "--tag", name, "--quiet"]));
}

/** A registry on loopback that offers an image of these files, and what tells its address. */
export async function publishImage(place: Place, layers: Readonly<Record<string, string>>) {
  await requireProgram("docker-registry");
  const registry = await startRegistryServer();
  try {
    const root = join(place.directory, "publisher");
    const name = `${registry.host}/bench/os:1`;
    await buildImage(root, name, layers);
    await runToEnd(bootshim(root, ["push", name, "--quiet"]));
    await rm(root, { recursive: true });
    return { name, host: registry.host, stop: () => registry.stop() };
  } catch (error) {
    await registry.stop();
    throw error;
  }
}

/** @throws {Unavailable} */
export async function requireProgram(name: string): Promise<void> {
  for (const directory of (process.env["PATH"] ?? "").split(":")) {
    if (await access(join(directory, name)).then(() => true, () => false)) return;
  }
  throw new Unavailable(`${name} is not installed`);
}

/** An empty directory under this name. */
export async function freshDirectory(path: string): Promise<string> {
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { recursive: true });
  return path;
}
