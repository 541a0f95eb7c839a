/** A whole pull on a file system that fails, that stops, and whose power goes: S0, S1 or S2, and the next pull works. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type PulledImage, pullImage } from "../../src/agent/pull_image.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { ShimError } from "../../src/errors.ts";
import { effectiveUserId, type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import type { VerifiedDocument } from "../../src/image/image_source.ts";
import type { LayoutReference } from "../../src/image/reference.ts";
import { openAgent } from "../support/agent_kit.ts";
import { startScript } from "../support/child_script.ts";
import { codeOf } from "../support/failures.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, publishLayout, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { RecordingFileSystem } from "../support/power_loss.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const MIB = 1024 * 1024;
const WISH = { architecture: "amd64", variant: "virtualization", pull: "always" } as const;

type Published = {
  readonly reference: LayoutReference;
  readonly name: string;
  readonly index: VerifiedDocument;
  readonly images: readonly OsImage[];
};

const newImage = () =>
  osImage({
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
    rootfs: new Uint8Array(randomBytes(20_000)),
  });

/** Two images that one after the other have the same name; the second shares a layer with the first. */
async function publishTwo(): Promise<readonly [Published, Published]> {
  const first = newImage();
  const kernel = first.layers.kernel?.bytes ?? new Uint8Array();
  const second = osImage({
    kernel,
    initramfs: randomInitramfs(),
    rootfs: new Uint8Array(randomBytes(20_000)),
  });
  const published = [];
  for (const [i, image] of [first, second].entries()) {
    published.push({ ...await publishLayout(join(temporary(), `layout-${i}`), [image]), images: [image] });
  }
  const [one, two] = published;
  if (!one || !two) throw new Error("two images were published");
  return [one, two];
}

async function pull(
  rootDirectory: string,
  { reference }: Published,
  fileSystem: FileSystem,
): Promise<PulledImage> {
  const content = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
  const context = await openAgent(rootDirectory, { content });
  return await pullImage(context, { ...WISH, reference });
}

async function expectComplete(rootDirectory: string, published: Published): Promise<void> {
  const { layers } = await pull(rootDirectory, published, nodeFileSystem);
  const [image] = published.images;
  for (const { role, path } of layers) {
    expect((await readFile(path)).equals(image?.layers[role]?.bytes ?? new Uint8Array())).toBe(true);
  }
  expect(layers).toHaveLength(3);
  expect(layoutProblems(rootDirectory)).toEqual([]);
}

async function nameStandsFor(rootDirectory: string, name: string): Promise<string | undefined> {
  const store = await ContentStore.open({ rootDirectory, groupId: null });
  return (await store.findReference(name))?.descriptor.digest;
}

const CODES: Record<string, string> = {
  ENOSPC: "NO_SPACE",
  EIO: "IO_ERROR",
  EROFS: "IO_ERROR",
  EMFILE: "BUSY",
};

describe("a pull", () => {
  it.each(Object.keys(CODES))(
    "DC10 DC12 DC14 DC15 DC16 %s at any operation: a right error, S0 or S1 or S2, and the next pull works",
    async (errno) => {
      const [published] = await publishTwo();
      let at = 0;
      for (;; at++) {
        const rootDirectory = join(temporary(), `root-${at}`);
        await ContentStore.open({ rootDirectory, groupId: null });
        const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno });
        const error = await pull(rootDirectory, published, fileSystem).then(
          () => undefined,
          (reason) => reason,
        );
        const operation = fileSystem.operations[at];
        if (operation === undefined) break;
        // Closing a lock tells nothing; where there is no room, some is made and asked for again.
        // A verdict that is not written, a lease or a last use that is not tidied up, cost a hash or a sweep later on.
        const isHint = /^(?:close .*\/locks\/|statfs |\w+ .*\/verdicts\/|\w+ .*\/leases\/)/.test(operation);
        const where = `${errno} at ${at}: ${operation}`;
        if (!isHint) expect([where, error?.code]).toEqual([where, CODES[errno]]);
        expect(error === undefined || error instanceof ShimError).toBe(true);
        const partials = errno === "EMFILE" ? "any" : 0;
        expect([where, layoutProblems(rootDirectory, { partials, areRecordsAhead: true })]).toEqual([
          where,
          [],
        ]);
        await expectComplete(rootDirectory, published);
        await rm(rootDirectory, { recursive: true });
      }
      expect(at).toBeGreaterThan(100);
    },
    300_000,
  );

  it(
    "DC01 DC02 a kill at any operation of a pull that moves a name: old or new, and the next pull works",
    async () => {
      const versions = await publishTwo();
      const directory = join(temporary(), "layout");
      const reference = { transport: "oci", directory, tag: "1" } as const;
      const [older, newer] = [{ ...versions[0], reference }, { ...versions[1], reference }];
      /** What a registry does when a tag is moved. */
      const publish = async (version: Published) => {
        await rm(directory, { force: true });
        await symlink(version.reference.directory, directory);
      };
      const name = `oci:${directory}:1`;
      const roots = versions.map(({ index }) => index.descriptor.digest);
      let at = 0;
      for (;; at++) {
        const rootDirectory = join(temporary(), `root-${at}`);
        await publish(versions[0]);
        await pull(rootDirectory, older, nodeFileSystem);
        await publish(versions[1]);
        const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno: "killed" });
        const outcome = await pull(rootDirectory, newer, fileSystem).then(
          () => "done",
          String,
        );
        const operation = fileSystem.operations[at];
        if (operation === undefined) break;
        if (!/^close .*\/locks\//.test(operation)) {
          expect([at, outcome]).toEqual([
            at,
            expect.stringMatching(/killed at/),
          ]);
        }
        expect([at, layoutProblems(rootDirectory, { isAfterKill: true })]).toEqual([at, []]);
        await ContentStore.open({ rootDirectory, groupId: null });
        expect([at, layoutProblems(rootDirectory, { partials: "any", areRecordsAhead: true })]).toEqual([
          at,
          [],
        ]);
        expect(roots).toContain(await nameStandsFor(rootDirectory, name));
        await expectComplete(rootDirectory, newer);
        expect(await nameStandsFor(rootDirectory, name)).toBe(roots[1]);
        await rm(rootDirectory, { recursive: true });
      }
      expect(at).toBeGreaterThan(100);
    },
    300_000,
  );

  it("DC01 kill -9 of a real process at sampled operations: the next pull works", async () => {
    const [published] = await publishTwo();
    let killed = 0;
    for (let at = 20; at < 260; at += 23) {
      const rootDirectory = join(temporary(), `root-${at}`);
      await ContentStore.open({ rootDirectory, groupId: null });
      const child = startScript("pull_script.ts", [rootDirectory, published.reference.directory, String(at)]);
      if (await child.exited === null) killed += 1;
      expect([at, layoutProblems(rootDirectory, { isAfterKill: true })]).toEqual([at, []]);
      await expectComplete(rootDirectory, published);
    }
    expect(killed).toBeGreaterThanOrEqual(5);
  }, 120_000);
});

describe("a power loss", () => {
  it(
    "DC03 at any moment of a pull, whatever of the unsynced reached the disk: sound, and the next pull works",
    async () => {
      const [published] = await publishTwo();
      const rootDirectory = join(temporary(), "root");
      const fileSystem = new RecordingFileSystem(nodeFileSystem, rootDirectory);
      const content = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
      const opened = fileSystem.moments;
      const context = await openAgent(rootDirectory, { content });
      const { image } = await pullImage(context, { ...WISH, reference: published.reference });
      expect(fileSystem.moments).toBeGreaterThan(opened + 30);
      const random = (seed: number) => (event: number) => ((event + 1) * 2654435761 + seed * 40503) % 97 < 48;
      const survivals = [() => false, () => true, random(1), random(2), random(3)];
      for (let moment = 0; moment <= fileSystem.moments; moment++) {
        for (const [which, survives] of survivals.entries()) {
          const target = join(temporary(), "after");
          await fileSystem.build(target, moment, survives);
          const where = [moment, which];
          await ContentStore.open({ rootDirectory: target, groupId: null }).catch((error: unknown) => {
            throw new Error(`the cache does not open after a power loss at ${where}`, { cause: error });
          });
          const problems = layoutProblems(target, { partials: "any", areRecordsAhead: true });
          expect([where, problems]).toEqual([where, []]);
          const digest = await nameStandsFor(target, image.name);
          // What was said to be done is done.
          if (moment === fileSystem.moments) expect(digest).toBe(image.root.digest);
          await expectComplete(target, published);
          await rm(target, { recursive: true });
        }
      }
    },
    300_000,
  );
});

describe("a full disk", () => {
  it.runIf(effectiveUserId() === 0)(
    "DC10 asks for the sum of all layers before the first byte, keeps others served, and works when there is space",
    async () => {
      const mountPoint = join(temporary(), "small");
      await mkdir(mountPoint);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", mountPoint]);
      try {
        const rootDirectory = join(mountPoint, "root");
        const [small] = await publishTwo();
        await pull(rootDirectory, small, nodeFileSystem);
        const big = (sizeBytes: number) => new Uint8Array(randomBytes(sizeBytes));
        const initramfs = new Uint8Array([...new TextEncoder().encode("070701"), ...big(7 * MIB)]);
        const image = osImage({ kernel: randomKernel(), initramfs, rootfs: big(7 * MIB) });
        const large = { ...await publishLayout(join(temporary(), "large"), [image]), images: [image] };
        const before = await tree(rootDirectory);
        const context = await openAgent(rootDirectory);
        const phases: string[] = [];
        const refused = pullImage(context, { ...WISH, reference: large.reference }, {
          onProgress: ({ doneBytes }) => void (doneBytes > 0 && phases.push("bytes")),
        });
        expect(await codeOf(refused)).toBe("NO_SPACE");
        expect([phases, await tree(rootDirectory)]).toEqual([[], before]);
        await expectComplete(rootDirectory, small);
        execFileSync("mount", ["-o", "remount,size=40m", mountPoint]);
        await expectComplete(rootDirectory, large);
      } finally {
        execFileSync("umount", [mountPoint]);
      }
    },
  );
});

/** Every file below a root but its lock files, which are made when they are first needed. */
async function tree(rootDirectory: string): Promise<string[]> {
  const names = await readdir(rootDirectory, { recursive: true });
  return names.filter((name) => !name.startsWith("locks/")).sort();
}
