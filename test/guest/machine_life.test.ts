/** Who may change a machine, and when: one lock for all verbs, running guests, and what a start looks at first. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { beforeEach, describe, expect, it } from "vitest";
import type { AgentContext } from "../../src/agent/agent_context.ts";
import { defineMachine, destroyMachine, startMachine } from "../../src/agent/domains.ts";
import { releaseMachine } from "../../src/agent/machines.ts";
import { prepare } from "../../src/agent/prepare.ts";
import type { MachineWishes } from "../../src/agent/prepare_machine.ts";
import type { Reference } from "../../src/image/reference.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { parseMachineId } from "../../src/machine/machine_id.ts";
import { openAgent } from "../support/agent_kit.ts";
import { bootshim, bootshimJson, startBootshim } from "../support/bootshim_command.ts";
import { mbrDisk } from "../support/disk_bytes.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const ID = parseMachineId("vm-1");
const UUID = "0f3a1c7e-5b1d-4c57-9a70-3f0d6f7f2b11";
let context: AgentContext;
let reference: Reference;
beforeEach(async () => {
  context = await openAgent(join(temporary(), "root"));
  reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
});

const make = async (machine: Partial<MachineWishes> = {}) => {
  const made = (await prepare(context, prepareWish(reference, machine))).machine;
  if (!made) throw new Error("prepare gave no machine");
  return made;
};
/** A lock's file goes with its machine. */
const machineLocks = async () =>
  (await readdir(join(context.rootDirectory, "locks"))).filter((name) => name.startsWith("machine-"));
const machineNames = () => readdir(join(context.rootDirectory, "machines"));

/** Bounded only by the test's own time: a loaded machine may take long. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!await holds()) await delay(20);
}

async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}

describe("a machine in use", () => {
  it.each(["overlay", "copy"] as const)(
    "by a QEMU with its disk (%s) open is IN_USE for release and start",
    async (clone) => {
      const { disks: [disk] } = await make({ clone });
      const qemu = spawn("qemu-io", ["-f", disk?.format ?? "", disk?.path ?? ""], {
        stdio: ["pipe", "ignore", "inherit"],
      });
      try {
        await until(async () => await context.machines.findLockedFile(ID) !== null);
        const failure = await failureOf(releaseMachine(context, "vm-1"));
        expect([failure.code, failure.details["path"]]).toEqual(["IN_USE", disk?.path]);
        expect(await codeOf(startMachine(context, "vm-1"))).toBe("IN_USE");
        expect(await machineNames()).toEqual(["vm-1"]);
      } finally {
        await end(qemu);
      }
      expect(await releaseMachine(context, "vm-1")).toEqual({ id: "vm-1" });
      expect(await machineNames()).toEqual([]);
    },
  );

  it("without a disk of its own, by a QEMU started by hand, is IN_USE", async () => {
    const directory = join(temporary(), "kernel");
    reference =
      (await publishLayout(directory, [osImage({ kernel: randomKernel(), initramfs: randomInitramfs() })]))
        .reference;
    const { uuid, disks } = await make();
    expect(disks).toEqual([]);
    // Stands for QEMU: what counts is the word on the command line.
    const qemu = spawn("sh", ["-c", "sleep 600; :", "-uuid", uuid], { stdio: "ignore", detached: true });
    try {
      const failure = await failureOf(releaseMachine(context, "vm-1"));
      expect([failure.code, failure.details["processId"]]).toEqual(["IN_USE", qemu.pid]);
    } finally {
      process.kill(-(qemu.pid ?? 0), "SIGKILL");
      await once(qemu, "close");
    }
    expect(await releaseMachine(context, "vm-1")).toEqual({ id: "vm-1" });
  });
});

describe("before a start", () => {
  const changes: [string, (paths: { disk: string; base: string }) => Promise<unknown>][] = [
    ["HD15: the overlay's base was changed", async ({ disk }) => {
      const other = join(temporary(), "other");
      await writeFile(other, new Uint8Array(1024 * 1024));
      execFileSync("qemu-img", ["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", other, disk]);
    }],
    [
      "HD15: the overlay was made another",
      ({ disk }) => Promise.resolve(execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", disk, "1M"])),
    ],
    ["DC25: the disk is gone", ({ disk }) => rm(disk)],
    ["DC25: the disk was cut off", ({ disk }) => truncate(disk, 20)],
    ["DC25: the base is gone", ({ base }) => rm(base)],
    ["DC25: the base was cut off", async ({ base }) => {
      await chmod(base, 0o600);
      await truncate(base, 512);
    }],
    ["DC25: one bit of the base was changed in place, size, owner and mode as before", async ({ base }) => {
      const { mode, size, uid } = await stat(base);
      await chmod(base, 0o600);
      const bytes = await readFile(base);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      await writeFile(base, bytes);
      await chmod(base, mode & 0o777);
      expect(await stat(base)).toMatchObject({ mode, size, uid });
    }],
    ["DC25: the base can be written by others", ({ base }) => chmod(base, 0o666)],
    ["DC25: the base is a link", async ({ base }) => {
      await rm(base);
      await symlink("/etc/hostname", base);
    }],
  ];
  it.each(changes)("%s: CONTENT_CORRUPT, and libvirt hears nothing of it", async (_what, change) => {
    const { disks: [disk] } = await make({ clone: "overlay" });
    await change({ disk: disk?.path ?? "", base: disk?.backing?.path ?? "" });
    expect(await codeOf(startMachine(context, "vm-1"))).toBe("CONTENT_CORRUPT");
    expect(await machineNames()).toEqual(["vm-1"]);
  });

  it.each(["overlay", "copy"] as const)("a sound machine (%s) starts", async (clone) => {
    const { uuid } = await make({ clone });
    expect(await startMachine(context, "vm-1")).toEqual({ id: "vm-1", uuid, state: "running" });
  });
});

describe("one lock for a machine", () => {
  it("CO15: two that prepare it at once get one machine", async () => {
    const other = await openAgent(context.rootDirectory);
    const documents = await Promise.all(
      [context, other, context, other].map((each) => prepare(each, prepareWish(reference))),
    );
    expect(new Set(documents.map(({ machine }) => JSON.stringify(machine))).size).toBe(1);
    expect(await machineNames()).toEqual(["vm-1"]);
  });

  it("CO15: waits for whoever holds it, and is LOCK_TIMEOUT or CANCELLED when that takes too long", async () => {
    await make();
    await context.machines.hold(ID, async () => {
      const stop = new AbortController();
      const waiting = codeOf(releaseMachine(context, "vm-1", { signal: stop.signal }));
      const starting = codeOf(startMachine(context, "vm-1", { signal: stop.signal }));
      await delay(50);
      stop.abort();
      expect([await waiting, await starting]).toEqual(["CANCELLED", "CANCELLED"]);
      expect(await codeOf(context.machines.hold(ID, () => Promise.resolve(), { timeoutMs: 0 }))).toBe(
        "LOCK_TIMEOUT",
      );
    });
    expect(await machineNames()).toEqual(["vm-1"]);
  });

  it("CO16: prepare and release in any order leave a whole machine or none", async () => {
    const other = await openAgent(context.rootDirectory);
    for (let round = 0; round < 10; round++) {
      const actions = [0, 1, 2, 3].map(async (turn) => {
        await delay(Math.random() * 20);
        if (turn % 2 === 0) await prepare(turn < 2 ? context : other, prepareWish(reference));
        else {
          const code = await releaseMachine(other, "vm-1").then(() => null, (error) => error.code);
          expect([null, "MACHINE_NOT_FOUND"]).toContain(code);
        }
      });
      await Promise.all(actions);
      const { machines, unreadable } = await context.machines.list();
      expect(unreadable).toEqual([]);
      expect(await machineNames()).toEqual(machines.map(({ id }) => id));
    }
    expect(layoutProblems(context.rootDirectory)).toEqual([]);
  });

  it("CO16: nobody holds a machine twice while its lock's file comes and goes with it", async () => {
    const other = await openAgent(context.rootDirectory);
    let holders = 0;
    const work = async (each: AgentContext) => {
      for (let round = 0; round < 25; round++) {
        await each.machines.hold(ID, async () => {
          expect(++holders).toBe(1);
          await delay(Math.random() * 2);
          holders--;
        });
      }
    };
    await Promise.all([context, other, context, other].map(work));
    expect(await machineLocks()).toEqual([]);
  });

  it("one that is not there costs no lock file", async () => {
    expect(await codeOf(releaseMachine(context, "vm-9"))).toBe("MACHINE_NOT_FOUND");
    expect(await codeOf(startMachine(context, "vm-9"))).toBe("MACHINE_NOT_FOUND");
    expect((await readdir(join(context.rootDirectory, "locks"))).filter((name) => name.includes("vm-9")))
      .toEqual([]);
  });
});

describe("DC20: a caller that was killed", () => {
  const steps = {
    prepare: () => make({ uuid: UUID }),
    define: () => defineMachine(context, "vm-1"),
    start: () => startMachine(context, "vm-1"),
  };
  it.each(
    [
      ["before anything", []],
      ["between disk and define", ["prepare"]],
      ["between define and start", ["prepare", "define"]],
      ["between start and reply", ["prepare", "define", "start"]],
      ["between start, which defines, and reply", ["prepare", "start"]],
    ] as const,
  )("%s, starts over: one disk, one domain, running", async (_when, done) => {
    // The test driver forgets its domains with its last connection.
    const connection = await LibvirtConnection.open("test:///default");
    try {
      for (const step of done) await steps[step]();
      for (const step of ["prepare", "define", "start", "start"] as const) await steps[step]();
      const ours = (await connection.listDomains()).filter(({ name, uuid }) =>
        name === "vm-1" || uuid === UUID
      );
      expect(ours).toMatchObject([{ name: "vm-1", uuid: UUID, state: "running" }]);
      expect(await machineNames()).toEqual(["vm-1"]);
      expect(machineProblems(context.rootDirectory)).toEqual([]);
      expect(await codeOf(releaseMachine(context, "vm-1"))).toBe("IN_USE");
      expect((await destroyMachine(context, "vm-1")).state).toBe("shut off");
    } finally {
      await connection.close();
    }
  });
});

describe("a machine that is prepared again", () => {
  it("with other wishes is CONFLICT, which names them with both values", async () => {
    await make({ memoryMib: 256 });
    const failure = await failureOf(make({ memoryMib: 512, clone: "copy" }));
    expect(failure.code).toBe("CONFLICT");
    expect(failure.details).toMatchObject({
      differing: ["clone", "memoryMib"],
      before: { clone: "auto", memoryMib: 256 },
      now: { clone: "copy", memoryMib: 512 },
    });
  });

  it("after its tag moved is CONFLICT with the old and the new digest", async () => {
    const first = await prepare(context, prepareWish(reference));
    await rm(join(temporary(), "layout"), { recursive: true });
    reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
    const failure = await failureOf(prepare(context, { ...prepareWish(reference), pull: "always" }));
    expect([failure.code, failure.details["differing"]]).toEqual(["CONFLICT", ["manifestDigest"]]);
    expect(failure.message).toContain(first.manifestDigest);
    expect(failure.details["before"]).toEqual({ manifestDigest: first.manifestDigest });
  });

  it("under another id with the same wished UUID is CONFLICT, one after the other and at once", async () => {
    await make({ uuid: UUID });
    expect(await make({ uuid: UUID })).toMatchObject({ id: "vm-1", uuid: UUID });
    const failure = await failureOf(make({ id: "vm-2", uuid: UUID }));
    expect([failure.code, failure.details["other"]]).toEqual(["CONFLICT", "vm-1"]);
    const second = UUID.replace("0f", "1f");
    const codes = await Promise.all(
      ["a", "b", "c", "d"].map((id) => make({ id, uuid: second }).then(() => "made", (error) => error.code)),
    );
    expect(codes.sort()).toEqual(["CONFLICT", "CONFLICT", "CONFLICT", "made"]);
    expect(await machineNames()).toHaveLength(2);
  });
});

describe("a wish that no image can make right", () => {
  it.each<[string, Partial<MachineWishes>]>([
    ["an id that is none", { id: "../vm" }],
    ["a UUID that is none", { uuid: "1234" }],
    ["16 TiB and 1 MiB of memory", { memoryMib: 2 ** 24 + 1 }],
    ["no memory", { memoryMib: 0 }],
    ["513 processors", { cpus: 513 }],
    ["half a processor", { cpus: 0.5 }],
  ])("%s is REQUEST_INVALID before anything is transferred", async (_what, machine) => {
    expect(await codeOf(prepare(context, prepareWish(reference, machine)))).toBe("REQUEST_INVALID");
    expect(await readdir(join(context.rootDirectory, "images/blobs/sha256"))).toEqual([]);
  });
});

describe("machine show", () => {
  it("tells what the machine was made of and its state, as text and JSON", async () => {
    const { uuid, directory, disks: [disk] } = await make({ memoryMib: 128 });
    const options = { root: context.rootDirectory };
    const argv = ["machine", "show", "vm-1", "--connect", "test:///default"];
    expect(await bootshimJson(argv, options)).toMatchObject({
      id: "vm-1",
      uuid,
      directory,
      state: "undefined",
      wishes: { memoryMib: 128 },
      machine: { disks: [disk] },
    });
    const { stdout, exitCode } = await bootshim(argv, options);
    expect([exitCode, stdout]).toEqual([
      0,
      expect.stringContaining(`disk         ${disk?.path} (qcow2, overlay,`),
    ]);
    expect((await bootshim(["machine", "show", "vm-9"], options)).exitCode).toBe(66);
    expect((await bootshim(["machine", "hide", "vm-1"], options)).exitCode).toBe(64);
  });
});

describe("what killed processes left", () => {
  it("DC21: is swept by its lock, and what somebody holds is left alone", async () => {
    const machines = join(context.rootDirectory, "machines");
    const stale = `.vm-7.new-${"0".repeat(16)}`;
    const living = `.vm-8.old-${"1".repeat(16)}`;
    for (const name of [stale, living]) {
      execFileSync("mkdir", [join(machines, name)]);
      await writeFile(join(machines, name, "disk.raw"), "half");
    }
    const other = await openAgent(context.rootDirectory);
    await other.machines.hold(parseMachineId("vm-8"), async () => {
      expect(await context.machines.sweep()).toEqual([]);
      expect(await machineNames()).toEqual([living]);
    });
    await context.machines.sweep();
    expect(await machineNames()).toEqual([]);
    expect(await machineLocks()).toEqual([]);
  });

  it("of a run: its machine goes with the next run, a kept one and a running one stay", async () => {
    // A boot sector that jumps to itself: nothing of what runs it may depend on what random code does.
    const rootfs = mbrDisk([{ type: 0x83, firstSector: 2048, status: 0x80 }], {
      bootCode: "\xeb\xfe",
      sizeBytes: 4 * 2 ** 20,
    });
    const { name } = await publishLayout(join(temporary(), "loop"), [osImage({ rootfs })]);
    await make();
    const argv = ["run", name, "--accel", "tcg", "--network", "none", "--memory", "64MiB"];
    const start = async (known: readonly string[]) => {
      const child = startBootshim(argv, { root: context.rootDirectory });
      let made: string[] = [];
      await until(async () => {
        made = (await machineNames()).filter((id) => id.startsWith("run-") && !known.includes(id));
        return made.length > 0 || child.exitCode !== null;
      });
      expect(child.exitCode).toBe(null);
      return { child, id: made[0] ?? "" };
    };
    const killed = await start([]);
    await end(killed.child);
    const living = await start([killed.id]);
    // It was swept before the living one was made.
    expect((await machineNames()).sort()).toEqual([living.id, "vm-1"].sort());
    await context.machines.sweep();
    expect((await machineNames()).sort()).toEqual([living.id, "vm-1"].sort());
    expect(
      await codeOf(
        context.machines.hold(parseMachineId(living.id), () => Promise.resolve(), { timeoutMs: 0 }),
      ),
    )
      .toBe("LOCK_TIMEOUT");
    const closed = once(living.child, "close");
    living.child.kill("SIGTERM");
    await closed;
    expect(await machineNames()).toEqual(["vm-1"]);
    expect(await machineLocks()).toEqual(["machine-vm-1"]);
  });
});
