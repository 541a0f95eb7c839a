/** Every file operation of making and giving up a machine fails, or is the last one: what is left, and what comes next. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../src/agent/agent_context.ts";
import { releaseMachine } from "../../src/agent/machines.ts";
import { prepare } from "../../src/agent/prepare.ts";
import type { MachineWishes } from "../../src/agent/prepare_machine.ts";
import { BlobAudit } from "../../src/content/blob_audit.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { DerivedDisks } from "../../src/content/derived_disks.ts";
import { KnownAcceleration } from "../../src/agent/known_acceleration.ts";
import { KnownFindings } from "../../src/agent/known_findings.ts";
import { Leases } from "../../src/content/lease.ts";
import { ShimError } from "../../src/errors.ts";
import { effectiveUserId, nodeFileSystem } from "../../src/host/file_system.ts";
import type { Reference } from "../../src/image/reference.ts";
import { parseMachineId } from "../../src/machine/machine_id.ts";
import { MachineStore } from "../../src/machine/machine_store.ts";
import { openAgent } from "../support/agent_kit.ts";
import { type Fault, FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { withMounted } from "../support/mounted.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

// In memory: thousands of fsyncs are not what is tested.
const temporary = useTemporaryDirectory("/dev/shm");
const ERRNOS = ["ENOSPC", "EIO", "EMFILE", "EROFS", "killed"] as const;
const CODES: Readonly<Record<string, readonly string[]>> = {
  ENOSPC: ["NO_SPACE"],
  EIO: ["IO_ERROR"],
  EMFILE: ["BUSY"],
  EROFS: ["IO_ERROR"],
};

type Scene = { readonly context: AgentContext; readonly reference: Reference };

/** A root whose image is cached, so that all that can fail is the machine's. */
async function openScene(parent = temporary()): Promise<Scene> {
  const root = join(parent, "root");
  await mkdir(root, { mode: 0o700 });
  const context = await openAgent(root, { libvirtUri: "test:///default" });
  const reference = await publishRootfs(join(parent, "layout"), randomRootfs(300 * 1024));
  await prepare(context, prepareWish(reference, null));
  return { context, reference };
}

type Faulty = { readonly faulty: AgentContext; readonly operations: () => number };

/** The same root, whose machines go through a file system that fails; opening it is not what is tested. */
async function withFault({ context }: Scene, fault?: Fault): Promise<Faulty> {
  const fileSystem = new FaultyFileSystem(nodeFileSystem);
  const options = { rootDirectory: context.rootDirectory, groupId: null, fileSystem };
  const machines = await MachineStore.open(options);
  return armed(fileSystem, { context: { ...context, machines }, fault });
}

/** The same with all that an operation touches: machines, images, leases, and what is known of layers. */
async function withFaultAnywhere({ context }: Scene, fault?: Fault): Promise<Faulty> {
  const fileSystem = new FaultyFileSystem(nodeFileSystem);
  const options = { rootDirectory: context.rootDirectory, groupId: null, fileSystem };
  const content = await ContentStore.open(options);
  const machines = await MachineStore.open(options);
  const parts = {
    content,
    machines,
    leases: new Leases(options),
    findings: new KnownFindings(),
    acceleration: new KnownAcceleration(),
    audit: new BlobAudit(options),
    derived: new DerivedDisks({ ...options, content }),
  };
  return armed(fileSystem, { context: { ...context, ...parts }, fault });
}

function armed(
  fileSystem: FaultyFileSystem,
  { context, fault }: { readonly context: AgentContext; readonly fault: Fault | undefined },
): Faulty {
  const opening = fileSystem.operations.length;
  if (fault) fileSystem.arm(fault);
  return { faulty: context, operations: () => fileSystem.operations.length - opening };
}

/** What the user is told; anything but a coded failure is a fault of ours. A killed process tells nothing. */
async function outcomeOf(action: Promise<unknown>, errno: string): Promise<string> {
  try {
    await action;
    return "done";
  } catch (error) {
    if (errno === "killed") return "killed";
    if (error instanceof ShimError) return error.code;
    throw error;
  }
}

async function enumerate(
  errno: (typeof ERRNOS)[number],
  machine: Partial<MachineWishes>,
  { verb, parent, open = withFault, first = 0, step = 1 }: {
    readonly verb: "prepare" | "release";
    readonly parent?: string;
    readonly open?: typeof withFault;
    /** Which operations. */
    readonly first?: number;
    readonly step?: number;
  },
): Promise<number> {
  const scene = await openScene(parent);
  const { context, reference } = scene;
  const wish = prepareWish(reference, machine);
  const names = () => readdir(join(context.rootDirectory, "machines"));
  const run = async (each: AgentContext) =>
    await (verb === "prepare" ? prepare(each, wish) : releaseMachine(each, "vm-1"));
  const before = async () => {
    if (verb === "release") await prepare(context, wish);
  };
  await before();
  const counted = await open(scene);
  await run(counted.faulty);
  const count = counted.operations();
  for (let at = first; at < count; at += step) {
    if ((await names()).includes("vm-1")) await context.machines.remove(parseMachineId("vm-1"));
    await before();
    const { faulty } = await open(scene, { at, errno });
    const outcome = await outcomeOf(run(faulty), errno);
    expect([at, ["done", "killed", ...CODES[errno] ?? []]]).toEqual([at, expect.arrayContaining([outcome])]);
    const problems = () => [...machineProblems(context.rootDirectory, { isAfterKill: errno === "killed" })];
    // What a failed removal could not take away goes with the next call.
    if (verb === "prepare") expect([at, problems()]).toEqual([at, []]);
    else expect([at, machineProblems(context.rootDirectory, { isAfterKill: true })]).toEqual([at, []]);
    if (outcome === "done") expect((await names()).includes("vm-1")).toBe(verb === "prepare");
    // The next call completes, whatever there was.
    const { machine: made } = await prepare(context, wish);
    expect(made?.disks[0]?.method).toBe(machine.clone);
    expect([at, await names(), machineProblems(context.rootDirectory)]).toEqual([at, ["vm-1"], []]);
  }
  expect(layoutProblems(context.rootDirectory)).toEqual([]);
  return count;
}

describe("DC11, DC13, DC19, DC20: a machine", () => {
  it.each(ERRNOS.flatMap((errno) => (["overlay", "copy"] as const).map((clone) => [errno, clone] as const)))(
    "%s at any operation of making it by %s leaves it whole or not there, and the next call completes",
    async (errno, clone) => {
      const count = await enumerate(errno, { clone, diskSizeBytes: 512 * 1024 }, { verb: "prepare" });
      expect(count).toBeGreaterThan(40);
    },
    600_000,
  );

  it.each(ERRNOS)(
    "%s at any operation of giving it up leaves it whole or gone, and the next call completes",
    async (errno) => {
      expect(await enumerate(errno, { clone: "overlay" }, { verb: "release" })).toBeGreaterThan(20);
    },
    600_000,
  );

  // In the short lane the failures share the operations; in the long one each of them has all.
  const share = (errno: (typeof ERRNOS)[number]) =>
    process.env["BOOTSHIM_FUZZ_RUNS"] === undefined
      ? { first: ERRNOS.indexOf(errno), step: ERRNOS.length }
      : {};

  it.each(ERRNOS)(
    "%s at any operation on machines, images, leases and verdicts together leaves all whole, and the next completes",
    async (errno) => {
      const options = { verb: "prepare", open: withFaultAnywhere, ...share(errno) } as const;
      expect(await enumerate(errno, { clone: "overlay" }, options)).toBeGreaterThan(50);
    },
    600_000,
  );

  it.runIf(effectiveUserId() === 0)(
    "any failure at any operation of making it by reflink, on XFS, leaves it whole or not there",
    async () => {
      for (const errno of ERRNOS) {
        const directory = join(temporary(), errno);
        await mkdir(directory);
        await withMounted("xfs", { directory, sizeMib: 320 }, async (parent) => {
          const wish = { clone: "reflink", diskSizeBytes: 512 * 1024 } as const;
          const options = { verb: "prepare", parent, ...share(errno) } as const;
          expect(await enumerate(errno, wish, options)).toBeGreaterThan(40);
        });
        await rm(directory, { recursive: true });
      }
    },
    600_000,
  );
});
