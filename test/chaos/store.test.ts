/**
 * Real processes that pull, prepare, release, remove and collect in one root, several at once, each killed at a random
 * moment: after every kill the cache is sound, every machine is whole, and none has lost what it stands on.
 * `deno task chaos-store` asks for 1,000 kills. `BOOTSHIM_CHAOS_KILLS` are asked for, and fewer within
 * `BOOTSHIM_CHAOS_SECONDS` are a failure.
 */
import { once } from "node:events";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { expect, it } from "vitest";
import { z } from "zod";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { bootshim, startBootshim } from "../support/bootshim_command.ts";
import { extDisk } from "../support/disk_bytes.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { type OsImage, osImage, publishLayout, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const KILLS = Number(process.env["BOOTSHIM_CHAOS_KILLS"] ?? "30");
const SECONDS = Number(process.env["BOOTSHIM_CHAOS_SECONDS"] ?? "900");
const AT_ONCE = 3;
const MIB = 1024 * 1024;
const machineJson = z.looseObject({
  uses: z.array(z.looseObject({ digest: z.string(), sizeBytes: z.number() })),
  manifestDigest: z.string(),
  document: z.looseObject({
    disks: z.array(z.looseObject({ path: z.string(), format: z.string(), readOnly: z.boolean() })),
  }),
});

it(`${KILLS} random kills of mixed commands leave the cache sound and every machine whole`, async () => {
  const id = await qemuGroupId();
  const groupId = id === null ? {} : { groupId: id };
  const root = join(temporary(), "root");
  const images = await publishImages();
  expect((await bootshim(["pull", images[0]?.name ?? ""], { root })).exitCode).toBe(0);
  const startMs = performance.now();
  const counts = { kills: 0, ended: 0, failed: new Map<string, number>() };
  // Adapts to how fast this host is: half of the commands are to come to their end.
  let longestMs = 2000;

  while (counts.kills < KILLS && performance.now() - startMs < SECONDS * 1000) {
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      const argv = [...anyOf(commandsOf(images)), "-o", "json"];
      const child = startBootshim(argv, { root });
      let said = "";
      child.stderr?.setEncoding("utf8").on("data", (text: string) => said += text);
      child.stdout?.resume();
      const timer = setTimeout(() => child.kill("SIGKILL"), Math.random() * longestMs);
      const [code] = await once(child, "close");
      clearTimeout(timer);
      const isKilled = child.signalCode === "SIGKILL";
      longestMs *= isKilled ? 1.05 : 0.95;
      if (isKilled) return void (counts.kills += 1);
      counts.ended += 1;
      if (code === 0) return;
      const error =
        z.object({ error: z.object({ code: z.string(), message: z.string() }) }).parse(JSON.parse(said))
          .error;
      counts.failed.set(error.code, (counts.failed.get(error.code) ?? 0) + 1);
      expect([argv.join(" "), error, EXPECTED_FAILURES.has(error.code)]).toEqual([
        argv.join(" "),
        error,
        true,
      ]);
    }));
    expect(layoutProblems(root, { ...groupId, isAfterKill: true })).toEqual([]);
    expect(machineProblems(root, { ...groupId, isAfterKill: true })).toEqual([]);
    expect(lostBytes(root, images)).toEqual([]);
  }
  expect(counts.kills).toBeGreaterThanOrEqual(KILLS);

  for (const { name, image } of images) {
    const ended = await bootshim(["prepare", name, "-o", "json"], { root });
    expect([ended.exitCode, ended.stderr]).toEqual([0, ""]);
    for (const { role, path } of prepared.parse(JSON.parse(ended.stdout)).layers) {
      const bytes = image.layers[role]?.bytes ?? new Uint8Array();
      expect(readFileSync(path).equals(bytes)).toBe(true);
    }
  }
  expect(machineProblems(root, groupId)).toEqual([]);
  expect(lostBytes(root, images)).toEqual([]);
  expect(layoutProblems(root, { ...groupId, partials: "any", areRecordsAhead: true })).toEqual([]);
  const failed = [...counts.failed].map(([code, count]) => `${code} ${count}`).join(", ");
  console.log(
    `${counts.kills} kills, ${counts.ended} commands that came to their end (${failed || "none failed"}), ${
      ((performance.now() - startMs) / 1000).toFixed(0)
    } s`,
  );
}, (SECONDS + 300) * 1000);

/** What a command may say when others remove, make and hold the same things. */
const EXPECTED_FAILURES = new Set([
  "MACHINE_NOT_FOUND",
  "IMAGE_NOT_FOUND",
  "CONFLICT",
  "IN_USE",
  "BUSY",
  "LOCK_TIMEOUT",
]);

const prepared = z.object({
  layers: z.array(z.object({ role: z.enum(["kernel", "initramfs", "rootfs"]), path: z.string() })),
});

type Named = { readonly name: string; readonly image: OsImage };

/** Three images; two share a kernel. */
async function publishImages(): Promise<readonly Named[]> {
  const kernel = randomKernel();
  const kernels = [kernel, kernel, randomKernel()];
  return await Promise.all(kernels.map(async (each, i) => {
    const initramfs = new Uint8Array([...randomInitramfs(), ...randomBytes(3 * MIB)]);
    const image = osImage({ kernel: each, initramfs, rootfs: randomFileSystem() });
    const { name } = await publishLayout(join(temporary(), `layout-${i}`), [image]);
    return { name, image };
  }));
}

/** What looks like a file system, of a size that disks can have. */
function randomFileSystem(): Uint8Array {
  const bytes = new Uint8Array(randomBytes(6 * MIB));
  bytes.set(extDisk().subarray(0, 4096));
  return bytes;
}

function commandsOf(images: readonly Named[]): readonly (readonly string[])[] {
  const machine = `m${Math.floor(Math.random() * 5)}`;
  const { name } = anyOf(images);
  return [
    ["pull", name],
    ["pull", name],
    ["prepare", name, "--machine", machine, "--accel", "tcg"],
    ["prepare", name, "--machine", machine, "--accel", "tcg", "--disk-format", "raw"],
    ["release", machine],
    ["rm", name],
    ["gc", "--min-age", "0"],
    ["gc", "--min-age", "0", "--max-bytes", "10MiB"],
  ];
}

function anyOf<T>(items: readonly T[]): T {
  const item = items[Math.floor(Math.random() * items.length)];
  if (item === undefined) throw new Error("There is nothing to choose from");
  return item;
}

/** What machines stand on and do not find: blobs that are gone or changed, the beginning of a copied disk. */
function lostBytes(root: string, images: readonly Named[]): string[] {
  const machines = join(root, "machines");
  if (!existsSync(machines)) return [];
  return readdirSync(machines).filter((name) => !name.startsWith(".")).flatMap((name) => {
    const { uses, manifestDigest, document } = machineJson.parse(
      JSON.parse(readFileSync(join(machines, name, "machine.json"), "utf8")),
    );
    const image = images.find((each) => each.image.manifest.descriptor.digest === manifestDigest)?.image;
    const rootfs = image?.layers.rootfs?.bytes ?? new Uint8Array();
    const copies = document.disks.filter(({ format, readOnly }) => format === "raw" && !readOnly);
    const cut = copies.filter(({ path }) =>
      rootfs.length === 0 || !readFileSync(path).subarray(0, rootfs.length).equals(rootfs)
    );
    return [
      ...cut.map(({ path }) => `${path} is not the image's disk`),
      ...uses.flatMap(({ digest, sizeBytes }) => {
        const [algorithm = "", encoded = ""] = digest.split(":");
        const blob = join(root, "images/blobs", algorithm, encoded);
        if (lstatSync(blob, { throwIfNoEntry: false })?.size !== sizeBytes) {
          return [`machine ${name} has lost ${digest}`];
        }
        const actual = createHash(algorithm).update(readFileSync(blob)).digest("hex");
        return actual === encoded ? [] : [`machine ${name} stands on a changed ${digest}`];
      }),
    ];
  });
}
