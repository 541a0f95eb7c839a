import { lstat, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { effectiveUserId, type FileSystem, nodeFileSystem } from "../../../src/host/file_system.ts";
import { parseMachineId } from "../../../src/machine/machine_id.ts";
import { MachineStore } from "../../../src/machine/machine_store.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { buildOf, randomRecord } from "../../support/machine_kit.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const id = parseMachineId("vm-1");
const place = () => join(temporary(), "machines", id);
const names = () => readdir(join(temporary(), "machines"));
const locks = () => readdir(join(temporary(), "locks"));
const open = (groupId: number | null = null) => MachineStore.open({ rootDirectory: temporary(), groupId });
const modesIn = async (directory: string) =>
  Object.fromEntries(
    await Promise.all(
      (await readdir(directory)).map(async (
        name,
      ) => [name, ((await lstat(join(directory, name))).mode & 0o7777).toString(8)]),
    ),
  );

let store: MachineStore;
beforeEach(async () => {
  store = await open();
});

describe("a machine whose maker did not come to making its name durable", () => {
  it.each(["EIO", "killed"])("is made so by the next one who prepares it (%s)", async (errno) => {
    const syncOfNames = (operation: string) => operation === `sync ${join(temporary(), "machines")}`;
    const files = new FaultyFileSystem(nodeFileSystem);
    const faulty = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem: files });
    const before = files.operations.length;
    await faulty.create(parseMachineId("vm-0"), buildOf(randomRecord("vm-0")));
    files.arm({ at: files.operations.slice(before).findIndex(syncOfNames), errno });
    const record = randomRecord(id);
    await faulty.create(id, buildOf(record)).then(() => expect.fail("it must fail"), () => {});
    const next = new FaultyFileSystem(nodeFileSystem);
    const other = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem: next });
    for (let time = 0; time < 2; time++) {
      expect(await other.create(id, buildOf(record))).toEqual({ record, created: false });
    }
    expect(next.operations.filter(syncOfNames)).toHaveLength(1);
  });
});

describe("MachineStore.create", () => {
  it("makes the whole machine under its final name, private to the user", async () => {
    const record = randomRecord(id);
    let built = "";
    const result = await store.create(id, async (directory) => {
      built = directory;
      expect(await names()).toEqual([directory.slice(directory.lastIndexOf("/") + 1)]);
      return await buildOf(record)(directory);
    });
    expect(result).toEqual({ record, created: true });
    expect(built).not.toBe(store.directoryOf(id));
    expect(await names()).toEqual([id]);
    expect(await readFile(join(place(), "disk.qcow2"), "utf8")).toBe(`disk.qcow2 of ${record.uuid}`);
    expect(await modesIn(place())).toEqual({
      "machine.json": "600",
      "disk.qcow2": "600",
      "squashfs.raw": "400",
      "nvram.fd": "600",
      "domain.xml": "400",
    });
    expect(((await lstat(place())).mode & 0o7777).toString(8)).toBe("700");
    expect(await store.read(id)).toEqual(record);
  });

  it.runIf(effectiveUserId() === 0)(
    "shares it with QEMU's group, and writable only what the guest writes",
    async () => {
      const shared = await open(12345);
      await shared.create(id, buildOf(randomRecord(id)));
      expect(await modesIn(place())).toEqual({
        "machine.json": "640",
        "disk.qcow2": "660",
        "squashfs.raw": "440",
        "nvram.fd": "660",
        "domain.xml": "440",
      });
      for (const path of [temporary(), join(temporary(), "machines"), place(), join(place(), "disk.qcow2")]) {
        const { gid, mode } = await lstat(path);
        expect([gid, mode & 0o7]).toEqual([12345, 0]);
      }
    },
  );

  it("gives the existing machine back and does not build again", async () => {
    const record = randomRecord(id);
    await store.create(id, buildOf(record));
    const build = () => Promise.reject(new Error("must not be called"));
    expect(await store.create(id, build)).toEqual({ record, created: false });
  });

  it("builds once for many who want it at the same time", async () => {
    const results = await Promise.all(
      Array.from({ length: 6 }, () => store.create(id, buildOf(randomRecord(id)))),
    );
    expect(results.filter((result) => result.created)).toHaveLength(1);
    expect(new Set(results.map((result) => result.record.uuid)).size).toBe(1);
  });

  it("leaves nothing when the build fails, and passes the failure on", async () => {
    const failure = new Error("qemu-img failed");
    const build = async (directory: string) => {
      await mkdir(join(directory, "sub"));
      await writeFile(join(directory, "sub", "half"), "x");
      throw failure;
    };
    await expect(store.create(id, build)).rejects.toBe(failure);
    expect(await names()).toEqual([]);
  });

  it.each<[string, (directory: string) => Promise<unknown>]>([
    ["a link", (directory) => symlink("/etc/passwd", join(directory, "extra"))],
    ["a directory", (directory) => mkdir(join(directory, "extra"))],
    ["no disk", (directory) => rm(join(directory, "disk.qcow2"))],
  ])("refuses a build that made %s, and leaves nothing", async (_case, spoil) => {
    const before = await lstat("/etc/passwd");
    const record = randomRecord(id);
    const build = async (directory: string) => {
      await buildOf(record)(directory);
      await spoil(directory);
      return record;
    };
    await expect(store.create(id, build)).rejects.toThrow();
    expect(await names()).toEqual([]);
    expect((await lstat("/etc/passwd")).mode).toBe(before.mode);
  });

  it("refuses a record of another machine", async () => {
    await expect(store.create(id, buildOf(randomRecord("vm-2")))).rejects.toThrow(
      'record of "vm-2" for machine "vm-1"',
    );
  });

  it.each<[string, () => Promise<unknown>]>([
    ["a file", () => writeFile(place(), "precious")],
    ["a link", () => symlink("/etc", place())],
    ["a directory without a record", async () => {
      await mkdir(place());
      await writeFile(join(place(), "disk.qcow2"), "precious");
    }],
  ])("DC23 leaves %s in the place untouched", async (_case, put) => {
    await put();
    const before = await lstat(place());
    const error = await failureOf(store.create(id, buildOf(randomRecord(id))));
    expect([error.code, error.message]).toEqual([
      "CONFLICT",
      `Cannot use machine id "${id}": "${place()}" is there and is no machine of bootshim`,
    ]);
    const after = await lstat(place());
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
    expect(await names()).toEqual([id]);
  });

  it("DC21 sweeps what killed calls for this id left, and no other's", async () => {
    const others = [".vm-10.part", `.${id}.part.part`, `.${id}.mine`, `${id}.part`];
    for (const name of [`.${id}.part`, ...others]) {
      await mkdir(join(temporary(), "machines", name, "deep"), { recursive: true });
    }
    await store.create(id, buildOf(randomRecord(id)));
    expect((await names()).sort()).toEqual([...others, id].sort());
    await mkdir(join(temporary(), "machines", `.${id}.part`, "deep"), { recursive: true });
    await store.remove(id);
    expect((await names()).sort()).toEqual([...others].sort());
  });

  it("DC21 sweeps what killed calls for any id left, by the names of earlier versions, too", async () => {
    const random = "0123456789abcdef";
    const dead = [".vm-1.part", ".vm-2.part.part", `.vm-3.new-${random}`, `.vm-3.old-${random}`];
    const others = [".vm-1.mine", ".vm-1.new-1", `vm-1.new-${random}`];
    for (const name of [...dead, ...others]) {
      await mkdir(join(temporary(), "machines", name, "deep"), { recursive: true });
    }
    expect(await store.sweep()).toEqual([]);
    expect((await names()).sort()).toEqual(others.sort());
    expect(await locks()).toEqual([]);
  });

  it("tries a reflink where no sweep takes it away, and leaves nothing", async () => {
    const from = join(temporary(), "source");
    await writeFile(from, "some bytes");
    let swept = 0;
    const fileSystem: FileSystem = {
      ...nodeFileSystem,
      open: async (path, flags, mode) => {
        if (path.endsWith("/disk")) {
          expect(await store.sweep()).toEqual([]);
          swept++;
        }
        return await nodeFileSystem.open(path, flags, mode);
      },
    };
    const trying = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem });
    expect(await trying.canReflink(from)).toBeTypeOf("boolean");
    expect([swept, await names(), await locks()]).toEqual([1, [], []]);
  });

  it("sweeps what a killed try of a reflink left", async () => {
    const from = join(temporary(), "source");
    await writeFile(from, "some bytes");
    const faulty = new FaultyFileSystem(nodeFileSystem);
    const dying = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem: faulty });
    // Behind the lock's three, the directory and the source.
    faulty.arm({ at: 6, errno: "killed" });
    await expect(dying.canReflink(from)).rejects.toThrow("killed");
    expect(await names()).toHaveLength(1);
    await store.sweep();
    expect([await names(), await locks()]).toEqual([[], []]);
  });

  it("makes everything durable before the machine has its name", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const watched = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem });
    await watched.create(id, buildOf(randomRecord(id)));
    const steps = fileSystem.operations.filter((operation) => /^(?:sync|rename)/.test(operation))
      .map((operation) =>
        operation.replaceAll(".vm-1.part", "NEW").replace(join(temporary(), "machines"), "")
      );
    expect(steps.slice(0, 4).sort()).toEqual([
      "sync /NEW/disk.qcow2",
      "sync /NEW/domain.xml",
      "sync /NEW/nvram.fd",
      "sync /NEW/squashfs.raw",
    ]);
    expect(steps.slice(4)).toEqual([
      "sync /NEW/machine.json",
      "sync /NEW",
      "rename /NEW",
      "sync ",
    ]);
  });
});

describe("HeldMachine.add", () => {
  const fill = (text: string) => (path: string) => writeFile(path, text);

  it("gives a machine one more file, read-only and synced before it has its name; one that is there stays", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const watched = await MachineStore.open({ rootDirectory: temporary(), groupId: null, fileSystem });
    await watched.create(id, buildOf(randomRecord(id)));
    // What a killed process left
    await writeFile(join(place(), ".kernel.new"), "half");
    const first = fileSystem.operations.length;
    await watched.hold(id, (held) => held.add("kernel", fill("whole")));
    expect(fileSystem.operations.slice(first).filter((each) => /^(?:sync|rename)/.test(each))).toEqual([
      `sync ${place()}/.kernel.new`,
      `rename ${place()}/.kernel.new`,
      `sync ${place()}`,
    ]);
    await watched.hold(id, (held) => held.add("kernel", fill("another")));
    expect(await readFile(join(place(), "kernel"), "utf8")).toBe("whole");
    expect(await modesIn(place())).toMatchObject({ kernel: "400" });
    expect(await readdir(place())).not.toContain(".kernel.new");
  });

  it("leaves nothing of a file that could not be made, and makes none for a machine that is not there", async () => {
    await store.create(id, buildOf(randomRecord(id)));
    const before = await readdir(place());
    const failing = store.hold(id, (held) =>
      held.add("kernel", async (path) => {
        await writeFile(path, "half");
        throw new Error("no more");
      }));
    await expect(failing).rejects.toThrow("no more");
    expect(await readdir(place())).toEqual(before);
    const other = parseMachineId("vm-2");
    expect(await codeOf(store.hold(other, (held) => held.add("kernel", fill("x"))))).toBe(
      "MACHINE_NOT_FOUND",
    );
    expect(await names()).toEqual([id]);
  });
});

describe("MachineStore.read and list", () => {
  it("says that there is none", async () => {
    expect(await codeOf(store.read(id))).toBe("MACHINE_NOT_FOUND");
    expect(await store.list()).toEqual({ machines: [], unreadable: [] });
  });

  it("lists by id, tells of damaged machines, and leaves out what is none", async () => {
    const [first, second] = [randomRecord("a"), randomRecord("b")];
    for (const record of [second, first]) await store.create(parseMachineId(record.id), buildOf(record));
    await mkdir(join(temporary(), "machines", "broken"));
    await mkdir(join(temporary(), "machines", "Not-A-Machine"));
    const { machines, unreadable } = await store.list();
    expect(machines).toEqual([first, second]);
    expect(unreadable.map(({ id, error }) => [id, error.code])).toEqual([["broken", "CACHE_LAYOUT_INVALID"]]);
  });

  it.each<[string, (path: string) => Promise<unknown>]>([
    ["garbage", (path) => writeFile(path, "root:x:0")],
    ["of another machine", (path) => writeFile(path, JSON.stringify(randomRecord("vm-2")))],
    ["a link", async (path) => {
      await rename(path, join(temporary(), "moved"));
      await symlink(join(temporary(), "moved"), path);
    }],
    ["missing", (path) => rm(path)],
    ["too large", (path) => writeFile(path, " ".repeat(1024 * 1024 + 1))],
  ])("refuses a record that is %s, and does not quote it", async (_case, damage) => {
    await store.create(id, buildOf(randomRecord(id)));
    await damage(join(place(), "machine.json"));
    const error = await failureOf(store.read(id));
    expect(error.code).toBe("CACHE_LAYOUT_INVALID");
    expect(error.message).not.toContain("root:x");
  });
});

describe("MachineStore.remove", () => {
  it("removes the machine, once", async () => {
    await store.create(id, buildOf(randomRecord(id)));
    await store.remove(id);
    expect(await names()).toEqual([]);
    expect(await codeOf(store.remove(id))).toBe("MACHINE_NOT_FOUND");
  });

  it("DC33 removes links in it and nothing behind them", async () => {
    await store.create(id, buildOf(randomRecord(id)));
    const outside = join(temporary(), "outside");
    await mkdir(outside);
    await writeFile(join(outside, "precious"), "kept");
    await symlink(outside, join(place(), "directory"));
    await symlink(join(outside, "precious"), join(place(), "file"));
    await store.remove(id);
    expect(await readdir(outside)).toEqual(["precious"]);
    expect(await names()).toEqual([]);
  });

  it("DC23 leaves a foreign file or link in the place", async () => {
    await symlink(temporary(), place());
    expect(await codeOf(store.remove(id))).toBe("CONFLICT");
    expect((await lstat(place())).isSymbolicLink()).toBe(true);
  });

  it("removes a machine whose record is damaged", async () => {
    await store.create(id, buildOf(randomRecord(id)));
    await writeFile(join(place(), "machine.json"), "garbage");
    await store.remove(id);
    expect(await names()).toEqual([]);
  });
});
