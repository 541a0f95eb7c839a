/** Machines' disks on real file systems: how they are made, what a guest sees of them, and what a failure leaves. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../src/agent/agent_context.ts";
import { prepare } from "../../src/agent/prepare.ts";
import type { MachineWishes } from "../../src/agent/prepare_machine.ts";
import type { Reference } from "../../src/image/reference.ts";
import { openAgent } from "../support/agent_kit.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { MOUNTABLE, withMounted } from "../support/mounted.ts";
import { qcow2File } from "../support/qcow2_bytes.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const MIB = 1024 * 1024;
const temporary = useTemporaryDirectory();
const sha256 = async (path: string) => createHash("sha256").update(await readFile(path)).digest("hex");
const machineNames = (context: AgentContext) => readdir(join(context.rootDirectory, "machines"));

/** What a guest sees of a disk, by qemu-img. */
async function contentOf({ path, format }: { path: string; format: string }): Promise<Uint8Array> {
  const flat = join(temporary(), "flat.raw");
  execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", path, flat]);
  return await readFile(flat);
}

function grown(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const all = new Uint8Array(sizeBytes);
  all.set(bytes);
  return all;
}

async function diskOf(context: AgentContext, reference: Reference, machine: Partial<MachineWishes> = {}) {
  const document = await prepare(context, prepareWish(reference, machine));
  const disk = document.machine?.disks[0];
  if (!disk) throw new Error("prepare gave no disk");
  return disk;
}

describe("a machine's disk", () => {
  const AUTO = {
    tmpfs: "overlay",
    ext4: "overlay",
    "xfs without reflink": "overlay",
    xfs: "reflink",
    btrfs: "reflink",
  } as const;

  it.each(MOUNTABLE)(
    "DC17, DC18: is made by what %s can do, and says so; the base stays as it was",
    async (kind) => {
      await withMounted(kind, { directory: temporary(), sizeMib: 320 }, async (mountPoint) => {
        const notes: string[] = [];
        const context = await openAgent(join(mountPoint, "root"), { notes });
        const rootfs = randomRootfs();
        const reference = await publishRootfs(join(temporary(), "layout"), rootfs);
        const auto = await diskOf(context, reference);
        expect(auto.method).toBe(AUTO[kind]);
        const wished = await diskOf(context, reference, {
          id: "vm-2",
          clone: "reflink",
          diskSizeBytes: 3 * MIB,
        });
        expect([wished.method, wished.format]).toEqual([
          AUTO[kind] === "reflink" ? "reflink" : "copy",
          "raw",
        ]);
        expect(notes).toHaveLength(AUTO[kind] === "reflink" ? 0 : 1);
        const blob = context.content.blobPath(
          `sha256:${createHash("sha256").update(rootfs).digest("hex")}` as Parameters<
            typeof context.content.blobPath
          >[0],
        );
        expect(Buffer.compare(await contentOf(auto), rootfs)).toBe(0);
        expect(Buffer.compare(await contentOf(wished), grown(rootfs, 3 * MIB))).toBe(0);
        execFileSync("qemu-io", ["-f", wished.format, "-c", "write -P 7 0 1M", wished.path]);
        execFileSync("qemu-io", ["-f", auto.format, "-c", "write -P 8 0 1M", auto.path]);
        expect(Buffer.compare(await readFile(blob), rootfs)).toBe(0);
        expect(layoutProblems(context.rootDirectory)).toEqual([]);
      });
    },
  );

  it.each(
    [
      ["raw", "copy", "auto", "raw", "copy"],
      ["raw", "copy", "qcow2", "qcow2", "copy"],
      ["raw", "auto", "qcow2", "qcow2", "overlay"],
      ["raw", "overlay", "auto", "qcow2", "overlay"],
      ["qcow2", "auto", "auto", "qcow2", "overlay"],
      ["qcow2", "auto", "raw", "raw", "copy"],
      ["qcow2", "copy", "raw", "raw", "copy"],
      ["qcow2", "copy", "auto", "qcow2", "copy"],
      ["qcow2", "reflink", "auto", "qcow2", "copy"],
    ] as const,
  )(
    "DC24: of a %s image, --clone %s, --disk-format %s: %s by %s, grown to the byte",
    async (base, clone, diskFormat, format, method) => {
      await withMounted("tmpfs", { directory: temporary(), sizeMib: 64 }, async (mountPoint) => {
        const context = await openAgent(join(mountPoint, "root"));
        const rootfs = randomRootfs();
        const layer = base === "raw" ? rootfs : qcow2File({ disk: rootfs });
        const reference = await publishRootfs(join(temporary(), "layout"), layer);
        for (const diskSizeBytes of [null, 2 * MIB + 512]) {
          const id = `vm-${diskSizeBytes ?? 0}`;
          const disk = await diskOf(context, reference, { id, clone, diskFormat, diskSizeBytes });
          const virtualSizeBytes = diskSizeBytes ?? MIB;
          expect(disk).toEqual({
            role: "rootfs",
            path: join(context.rootDirectory, "machines", id, `disk.${format}`),
            format,
            readOnly: false,
            serial: "machineboot",
            virtualSizeBytes,
            method,
            backing: method === "overlay" ? { path: expect.stringContaining("/blobs/"), format: base } : null,
          });
          expect(Buffer.compare(await contentOf(disk), grown(rootfs, virtualSizeBytes))).toBe(0);
        }
      });
    },
  );

  it.each(
    [
      ["HD21, DC24: a smaller size", { diskSizeBytes: MIB - 512 }, "LIMIT_EXCEEDED"],
      ["DC24: a size of part of a sector", { diskSizeBytes: 2 * MIB + 1 }, "REQUEST_INVALID"],
      ["a raw overlay", { clone: "overlay", diskFormat: "raw" }, "REQUEST_INVALID"],
      ["a qcow2 reflink of a raw disk", { clone: "reflink", diskFormat: "qcow2" }, "REQUEST_INVALID"],
    ] as const,
  )("%s is refused, and leaves no machine", async (_what, machine, code) => {
    const context = await openAgent(join(temporary(), "root"));
    const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
    expect(await codeOf(prepare(context, prepareWish(reference, machine)))).toBe(code);
    expect(await machineNames(context)).toEqual([]);
    expect(layoutProblems(context.rootDirectory)).toEqual([]);
  });

  it("DC17: is copied when the machines lie on another file system than the cache", async () => {
    const root = join(temporary(), "root");
    await openAgent(root);
    const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", join(root, "machines")]);
    try {
      const context = await openAgent(root);
      const disk = await diskOf(context, reference, { clone: "reflink" });
      expect([disk.method, disk.format, (await stat(disk.path)).size]).toEqual(["copy", "raw", MIB]);
    } finally {
      execFileSync("umount", [join(root, "machines")]);
    }
  });

  it.each(["copy", "overlay"] as const)(
    "DC11: by %s on a full disk is NO_SPACE, and leaves no machine",
    async (clone) => {
      await withMounted("tmpfs", { directory: temporary(), sizeMib: 8 }, async (mountPoint) => {
        const context = await openAgent(join(mountPoint, "root"));
        const rootfs = randomRootfs();
        crypto.getRandomValues(rootfs.subarray(300_000, 365_000));
        const reference = await publishRootfs(join(temporary(), "layout"), rootfs);
        await prepare(context, prepareWish(reference, null));
        const ballast = join(mountPoint, "ballast");
        try {
          execFileSync("dd", ["if=/dev/zero", `of=${ballast}`, "bs=4k"], { stdio: "pipe" });
        } catch {
          // Full, as wished.
        }
        const failure = await failureOf(prepare(context, prepareWish(reference, { clone })));
        expect(failure.code).toBe("NO_SPACE");
        expect(await machineNames(context)).toEqual([]);
        await rm(ballast);
        expect((await diskOf(context, reference, { clone })).method).toBe(clone);
        expect(layoutProblems(context.rootDirectory)).toEqual([]);
      });
    },
  );

  it("DC26: of a sparse image of 10 GiB takes less than 1 MiB at first, and the image what it holds", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const layout = join(temporary(), "layout");
    const reference = await publishRootfs(layout, randomRootfs());
    // The layout's layer grown to 10 GiB would have to be hashed, which says nothing of machines: the disk is grown.
    const overlay = await diskOf(context, reference, { diskSizeBytes: 10 * 2 ** 30 });
    const copy = await diskOf(context, reference, { id: "vm-2", diskSizeBytes: 10 * 2 ** 30, clone: "copy" });
    for (const { path } of [overlay, copy]) expect((await stat(path)).blocks * 512).toBeLessThan(MIB);
    expect((await stat(copy.path)).size).toBe(10 * 2 ** 30);
  });

  it("DC23: a file or link of somebody's in the machine's place is CONFLICT, and stays", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
    const place = join(context.rootDirectory, "machines/vm-1");
    const outside = join(temporary(), "outside");
    await mkdir(outside);
    await writeFile(join(outside, "disk.raw"), "precious");
    const puts: (() => Promise<void>)[] = [
      () => symlink(outside, place),
      () => writeFile(place, "precious"),
      () => mkdir(place).then(() => writeFile(join(place, "disk.raw"), "precious")),
    ];
    for (const put of puts) {
      await put();
      expect(await codeOf(prepare(context, prepareWish(reference)))).toBe("CONFLICT");
      expect(await machineNames(context)).toEqual(["vm-1"]);
      await rm(place, { recursive: true });
    }
    expect(await readFile(join(outside, "disk.raw"), "utf8")).toBe("precious");
  });

  it("HD13: a qcow2 header that the guest wrote into its raw disk means nothing to anybody", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
    const canary = join(temporary(), "canary");
    await writeFile(canary, randomRootfs());
    const before = await sha256(canary);
    const wish = prepareWish(reference, { clone: "copy" });
    const { machine } = await prepare(context, wish);
    const path = machine?.disks[0]?.path ?? "";
    const header = join(temporary(), "header");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", canary, header, "1M"]);
    execFileSync("qemu-io", ["-f", "raw", "-c", `write -s ${header} 0 128k`, path]);
    expect((await prepare(context, wish)).machine).toEqual(machine);
    expect(machine?.disks[0]?.format).toBe("raw");
    expect(machine?.qemuCommand.join(" ")).toContain('"driver":"raw","file":"disk0-file"');
    const xml = await readFile(machine?.domainXml ?? "", "utf8");
    expect(xml.match(/<driver [^>]*type="[^"]*"/g)).toEqual([expect.stringContaining('type="raw"')]);
    expect(await sha256(canary)).toBe(before);
  });
});
