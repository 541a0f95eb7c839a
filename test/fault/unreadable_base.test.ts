/** A device that cannot read a cached disk any more, while a machine's is made of it. */
import { randomBytes } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { prepare } from "../../src/agent/prepare.ts";
import { BlobAudit } from "../../src/content/blob_audit.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { DerivedDisks } from "../../src/content/derived_disks.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import { parseDigest } from "../../src/image/digest.ts";
import { MachineStore } from "../../src/machine/machine_store.ts";
import { openAgent } from "../support/agent_kit.ts";
import { failureOf } from "../support/failures.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);
const HALF = 700 * 1024;

/** One block of the files under `bad.path` cannot be read, or written. */
function failingDevice(bad: { path: string | null; verb: "read" | "write" }): FileSystem {
  const eio = () => Promise.reject(Object.assign(new Error("EIO: i/o error"), { code: "EIO" }));
  return {
    ...nodeFileSystem,
    open: async (path, flags, mode) => {
      const file = await nodeFileSystem.open(path, flags, mode);
      const isBad = (at: number, { length }: Uint8Array) =>
        bad.path !== null && path.startsWith(bad.path) && at < HALF + 4096 && at + length > HALF;
      return {
        ...file,
        read: (buffer, at) => bad.verb === "read" && isBad(at, buffer) ? eio() : file.read(buffer, at),
        write: (bytes, at) => bad.verb === "write" && isBad(at, bytes) ? eio() : file.write(bytes, at),
      };
    },
  };
}

/** The lost block is in the middle, where nobody looks who only wants to know what the disk is. */
function rootfs(): Uint8Array {
  const disk = randomRootfs();
  disk.set(randomBytes(8192), HALF);
  return disk;
}

async function openScene(layerBytes: Uint8Array) {
  const rootDirectory = join(temporary(), "root");
  await mkdir(rootDirectory, { mode: 0o700 });
  const bad: Parameters<typeof failingDevice>[0] = { path: null, verb: "read" };
  const options = { rootDirectory, groupId: null, fileSystem: failingDevice(bad) };
  const content = await ContentStore.open(options);
  const context = await openAgent(rootDirectory, {
    content,
    audit: new BlobAudit(options),
    derived: new DerivedDisks({ ...options, content }),
    machines: await MachineStore.open(options),
  });
  const reference = await publishRootfs(join(temporary(), "layout"), layerBytes);
  const cached = await prepare(context, prepareWish(reference, null));
  const layer = cached.layers.find(({ role }) => role === "rootfs");
  if (!layer) throw new Error("the image has a rootfs");
  const list = (name: string) => readdir(join(rootDirectory, name));
  return { context, bad, layer, list, wish: prepareWish(reference, { clone: "copy", diskFormat: "raw" }) };
}

describe("DC13 EIO while a machine's disk is copied", () => {
  it("from the blob: IO_ERROR, no disk, the blob is in quarantine; the next call fetches it again", async () => {
    const { context, bad, layer, list, wish } = await openScene(rootfs());
    bad.path = layer.path;
    const failure = await failureOf(prepare(context, wish));
    expect([failure.code, failure.details["errno"]]).toEqual(["IO_ERROR", "EIO"]);
    const [name, ...others] = await list("quarantine");
    expect([name, others]).toEqual([expect.stringContaining(layer.digest.replace(":", "-")), []]);
    expect(failure.details["quarantined"]).toEqual([join(context.rootDirectory, "quarantine", name ?? "")]);
    expect(failure.message).toContain("the device cannot read it");
    expect([await list("machines"), machineProblems(context.rootDirectory)]).toEqual([[], []]);
    bad.path = null; // the new file lies on other blocks
    const { machine, transferredBytes } = await prepare(context, wish);
    expect([machine?.id, transferredBytes]).toEqual(["vm-1", layer.sizeBytes]);
    expect([layoutProblems(context.rootDirectory), machineProblems(context.rootDirectory)]).toEqual([[], []]);
  });

  it("from an unpacked disk: that one goes, the blob stays, and the next call unpacks it again", async () => {
    const { context, bad, layer, list, wish } = await openScene(gzipSync(rootfs()));
    bad.path = context.derived.pathOf(parseDigest(layer.digest));
    expect(await failureOf(prepare(context, wish))).toMatchObject({ code: "IO_ERROR" });
    expect([await list("quarantine"), await list("derived/sha256"), await list("machines")]).toEqual([
      [],
      [],
      [],
    ]);
    bad.path = null;
    expect(await prepare(context, wish)).toMatchObject({ machine: { id: "vm-1" }, transferredBytes: 0 });
  });

  it("to the machine's disk: the blob is sound and stays", async () => {
    const { context, bad, layer, list, wish } = await openScene(rootfs());
    bad.path = join(context.rootDirectory, "machines");
    bad.verb = "write";
    const failure = await failureOf(prepare(context, wish));
    expect([failure.code, failure.details["quarantined"]]).toEqual(["IO_ERROR", undefined]);
    expect([await list("quarantine"), await list("machines")]).toEqual([[], []]);
    expect(await context.audit.audit(parseDigest(layer.digest), layer.sizeBytes)).toMatchObject({
      state: "sound",
    });
  });
});
