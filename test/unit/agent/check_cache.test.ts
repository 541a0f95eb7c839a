/** Blobs at rest: what damages them is found before a guest uses it, and put right. */
import {
  chmod,
  link,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  unlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeEach, describe, expect, it } from "vitest";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { checkCache, requireSoundCache } from "../../../src/agent/check_cache.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import { BlobAudit } from "../../../src/content/blob_audit.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import type { Reference } from "../../../src/image/reference.ts";
import { type Digest, parseDigest } from "../../../src/image/digest.ts";
import { prepare } from "../../../src/agent/prepare.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../../support/machine_wish.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { type Blob, blobOf, randomBlob } from "../../support/blobs.ts";
import { codeOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const rootDirectory = () => join(temporary(), "root");
const PLATFORM = { architecture: "amd64", variant: "virtualization" } as const;

let context: AgentContext;
let notes: string[];
let reference: Reference;
let name: string;
let kernel: Blob;
let manifest: Blob;
let index: Blob;
beforeEach(async () => {
  notes = [];
  context = await openAgent(rootDirectory(), { notes });
  const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() }, { variant: "kvm" });
  const published = await publishLayout(join(temporary(), "layout"), [image]);
  ({ reference, name, index } = published);
  ({ manifest } = image);
  const layer = Object.values(image.layers)[0];
  if (!layer) throw new Error("the image has a kernel");
  kernel = layer;
  await pullImage(context, { ...PLATFORM, reference, pull: "missing" });
});

const pathOf = ({ descriptor }: Blob) => context.content.blobPath(descriptor.digest);
const pull = (policy: "missing" | "never" = "missing") =>
  pullImage(context, { ...PLATFORM, reference, pull: policy });
const quarantined = () => readdir(join(rootDirectory(), "quarantine"));
async function flipBit(path: string) {
  await chmod(path, 0o600);
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4;
  await writeFile(path, bytes);
  await chmod(path, 0o400);
}
/** As if the host had been booted since: what was found out in another boot does not count. */
const reboot = () => rm(join(rootDirectory(), "verdicts", "sha256"), { recursive: true });

const damages: readonly [string, (path: string) => Promise<unknown>][] = [
  ["DC06 with one wrong bit", flipBit],
  ["DC07 cut short", async (path) => {
    await chmod(path, 0o600);
    await truncate(path, 100);
  }],
  ["DC07 empty", async (path) => {
    await chmod(path, 0o600);
    await truncate(path, 0);
  }],
  ["DC07 longer", async (path) => {
    await chmod(path, 0o600);
    await truncate(path, 1_000_000);
  }],
  ["DC08 a link to the right bytes", async (path) => {
    await writeFile(join(temporary(), "elsewhere"), await readFile(path));
    await unlink(path);
    await symlink(join(temporary(), "elsewhere"), path);
  }],
  ["DC08 a directory", async (path) => {
    await unlink(path);
    await mkdir(path);
  }],
  ["DC08 a FIFO", async (path) => {
    await unlink(path);
    execFileSync("mkfifo", [path]);
  }],
  ["DC08 a hard link to a file of the same size from outside", async (path) => {
    const { size } = await stat(path);
    await writeFile(join(temporary(), "outside"), randomBytes(size), { mode: 0o400 });
    await unlink(path);
    await link(join(temporary(), "outside"), path);
  }],
  ["DC08 writable by others", (path) => chmod(path, 0o646)],
];

describe("a damaged layer", () => {
  it.each(damages)("%s is moved away before anything uses it, and fetched again", async (_case, damage) => {
    await damage(pathOf(kernel));
    const { transferredBytes } = await pull();
    expect(transferredBytes).toBe(kernel.bytes.length);
    expect(await readFile(pathOf(kernel))).toEqual(Buffer.from(kernel.bytes));
    expect(await quarantined()).toHaveLength(1);
    expect(notes).toEqual([expect.stringContaining("and fetched again")]);
    expect(layoutProblems(rootDirectory(), { areImagesWhole: true })).toEqual([]);
  });

  it.each(damages)("%s is found by a check, and put right by a repair", async (_case, damage) => {
    await damage(pathOf(kernel));
    const found = await checkCache(context, { isRepair: false });
    expect(found.problems).toEqual([{
      kind: "corrupt",
      digest: kernel.descriptor.digest,
      reference: null,
      why: expect.stringContaining(kernel.descriptor.digest),
      quarantined: expect.stringContaining("/quarantine/sha256-"),
      isRepaired: false,
    }]);
    expect(() => requireSoundCache(found)).toThrow("Cannot vouch for the cache: 1 problems");
    await pull(); // it is quarantined now, so nothing is left of it
    await damage(pathOf(kernel));
    const repaired = await checkCache(context, { isRepair: true });
    expect(repaired.problems.map((each) => each.isRepaired)).toEqual([true]);
    requireSoundCache(repaired);
    expect(await readFile(pathOf(kernel))).toEqual(Buffer.from(kernel.bytes));
    expect((await checkCache(context, { isRepair: false })).problems).toEqual([]);
  });

  it("DC06 that nobody may fetch again is missing, and never used", async () => {
    await flipBit(pathOf(kernel));
    expect(await codeOf(pull("never"))).toBe("IMAGE_NOT_FOUND");
    expect(await quarantined()).toHaveLength(1);
  });

  it("DC06 is found at the first use after a boot, though its times tell nothing", async () => {
    const { atime, mtime } = await stat(pathOf(kernel));
    await flipBit(pathOf(kernel));
    await utimes(pathOf(kernel), atime, mtime);
    await reboot();
    expect((await pull()).transferredBytes).toBe(kernel.bytes.length);
  });
});

describe("what was found out about a blob", () => {
  it("is kept for this boot, so that it is hashed once", async () => {
    await reboot();
    const countReads = async () => {
      const fileSystem = new FaultyFileSystem(nodeFileSystem);
      const audit = new BlobAudit({ rootDirectory: rootDirectory(), fileSystem });
      const { digest, sizeBytes } = kernel.descriptor;
      expect(await audit.audit(digest, sizeBytes)).toMatchObject({ state: "sound", status: { sizeBytes } });
      return fileSystem.operations.filter((each) => each === `read ${pathOf(kernel)}`).length;
    };
    expect(await countReads()).toBeGreaterThan(0);
    expect(await countReads()).toBe(0);
    await utimes(pathOf(kernel), 1, 1);
    expect(await countReads()).toBeGreaterThan(0);
    expect(await countReads()).toBe(0);
    const [file = ""] = await readdir(join(rootDirectory(), "verdicts", "sha256"));
    const path = join(rootDirectory(), "verdicts", "sha256", file);
    for (const text of ["", "{}", (await readFile(path, "utf8")).replace(/"bootId":"./, '"bootId":"x')]) {
      await writeFile(path, text);
      expect(await countReads()).toBeGreaterThan(0);
    }
  });

  it("DC30 a freshly pulled layer is not hashed again", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const audit = new BlobAudit({ rootDirectory: rootDirectory(), fileSystem });
    await pullImage({ ...context, audit }, { ...PLATFORM, reference, pull: "missing" });
    expect(fileSystem.operations.filter((each) => /^read .*\/blobs\//.test(each))).toEqual([]);
  });

  it("DC15 need not be written: a check of a sound blob works on a file system that is full", async () => {
    const fileSystem = {
      ...nodeFileSystem,
      rename: () => Promise.reject(Object.assign(new Error("ENOSPC"), { code: "ENOSPC" })),
    };
    await reboot();
    const audit = new BlobAudit({ rootDirectory: rootDirectory(), fileSystem });
    const { digest, sizeBytes } = kernel.descriptor;
    expect((await audit.audit(digest, sizeBytes)).state).toBe("sound");
    expect(layoutProblems(rootDirectory())).toEqual([]);
  });
});

describe("check", () => {
  it("finds a sound cache sound", async () => {
    const progress: number[] = [];
    const checked = await checkCache(context, { isRepair: false }, {
      onProgress: ({ doneBytes }) => progress.push(doneBytes),
    });
    const sound = { checkedBlobs: 5, checkedDisks: 0, checkedBytes: expect.any(Number), problems: [] };
    expect(checked).toEqual(sound);
    expect(progress.at(-1)).toBe(checked.checkedBytes);
    requireSoundCache(checked);
  });

  it("repairs documents, the root of the image among them", async () => {
    await flipBit(pathOf(manifest));
    await unlink(pathOf(index));
    const { problems } = await checkCache(context, { isRepair: true });
    expect(problems.map(({ kind, isRepaired }) => [kind, isRepaired])).toEqual([["corrupt", true], [
      "missing",
      true,
    ]]);
    expect(layoutProblems(rootDirectory(), { areImagesWhole: true })).toEqual([]);
  });

  it("tells what it could not have again, and why", async () => {
    await flipBit(pathOf(kernel));
    await rm(join(temporary(), "layout"), { recursive: true });
    const checked = await checkCache(context, { isRepair: true });
    expect(checked.problems).toMatchObject([{
      isRepaired: false,
      why: expect.stringContaining("fetching it again"),
    }]);
    expect(() => requireSoundCache(checked)).toThrow("Cannot vouch");
  });

  it("a damaged blob that nobody needs is repaired by being away", async () => {
    const stray = randomBlob(50);
    await context.content.ingestBytes(stray);
    await flipBit(pathOf(stray));
    expect((await checkCache(context, { isRepair: true })).problems).toMatchObject([{ isRepaired: true }]);
  });

  it("HM23 an index edited to make a name stand for another image is told, and its record put right on demand", async () => {
    const other = blobOf(new TextEncoder().encode("{}"));
    await context.content.ingestBytes(other);
    const path = join(rootDirectory(), "images", "index.json");
    const text = await readFile(path, "utf8");
    const edited = text.replace(index.descriptor.digest, other.descriptor.digest)
      .replace(`"size":${index.bytes.length}`, `"size":${other.bytes.length}`);
    await writeFile(path, edited);
    const { problems } = await checkCache(context, { isRepair: false });
    expect(problems).toMatchObject([{ kind: "name", reference: name, isRepaired: false }]);
    expect(problems[0]?.why).toContain(`the index says "${other.descriptor.digest}"`);
    expect((await checkCache(context, { isRepair: true })).problems).toMatchObject([{ isRepaired: true }]);
    expect((await checkCache(context, { isRepair: false })).problems).toEqual([]);
  });

  describe("of unpacked disks", () => {
    let packed: Reference;
    let digest: Digest;
    let disk: string;
    beforeEach(async () => {
      packed = await publishRootfs(join(temporary(), "packed"), gzipSync(randomRootfs()));
      const { layers } = await prepare(context, prepareWish(packed, null));
      digest = parseDigest(layers.find(({ role }) => role === "rootfs")?.digest ?? "");
      disk = context.derived.pathOf(digest);
    });
    const derived = () => readdir(join(rootDirectory(), "derived", "sha256"));

    it("finds a sound one sound, and counts its bytes", async () => {
      const { checkedDisks, checkedBytes, problems } = await checkCache(context, { isRepair: false });
      expect([checkedDisks, problems]).toEqual([1, []]);
      await unlink(disk);
      const { checkedBytes: lessBytes } = await checkCache(context, { isRepair: false });
      expect(checkedBytes - lessBytes).toBe(randomRootfs().length);
    });

    it.each<[string, (path: string) => Promise<unknown>]>([
      ["one wrong bit", flipBit],
      ["a missing end", async (path) => {
        await chmod(path, 0o600);
        await truncate(path, 100);
      }],
      ["no disk", unlink],
      ["a link in its place", async (path) => {
        await unlink(path);
        await symlink("/etc/hostname", path);
      }],
      ["a record of somebody else's", (path) => writeFile(path.replace(/raw$/, "json"), "{}")],
    ])("DC06 removes one with %s, which is unpacked again at its next use", async (_what, damage) => {
      const before = await readFile(disk);
      await damage(disk);
      const { problems } = await checkCache(context, { isRepair: false });
      expect(problems).toMatchObject([{ kind: "corrupt", digest, quarantined: null, isRepaired: true }]);
      expect(await derived()).toEqual([]);
      expect((await checkCache(context, { isRepair: false })).problems).toEqual([]);
      await prepare(context, prepareWish(packed, null));
      expect((await readFile(disk)).equals(before)).toBe(true);
    });

    it("says which machine reads a wrong one; preparing that machine again brings it back", async () => {
      const wish = prepareWish(packed, { clone: "overlay" });
      await prepare(context, wish);
      await flipBit(disk);
      const { problems } = await checkCache(context, { isRepair: false });
      expect(problems).toMatchObject([{ isRepaired: false }]);
      expect(problems[0]?.why).toContain('machine "vm-1" reads it');
      await prepare(context, wish);
      expect((await checkCache(context, { isRepair: false })).problems).toEqual([]);
    });
  });

  it("CO20 leaves the main loop free", async () => {
    await context.content.ingestBytes(randomBlob(64 * 1024 * 1024));
    const gapsMs: number[] = [];
    let lastMs = performance.now();
    const timer = setInterval(() => {
      gapsMs.push(performance.now() - lastMs);
      lastMs = performance.now();
    }, 1);
    const { checkedBytes } = await checkCache(context, { isRepair: false });
    clearInterval(timer);
    expect(checkedBytes).toBeGreaterThan(64 * 1024 * 1024);
    expect(gapsMs.length).toBeGreaterThan(0);
    const medianMs = gapsMs.toSorted((one, other) => one - other)[Math.floor(gapsMs.length / 2)] ?? 0;
    console.info(`main loop while hashing: median ${medianMs.toFixed(1)} ms of ${gapsMs.length} ticks`);
    // Some are as long as the host takes the thread away.
    expect(medianMs).toBeLessThan(20);
  });
});
