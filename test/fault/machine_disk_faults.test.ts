/** Every file operation of making and giving up a machine fails, or is the last one: what is left, and what comes next. */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../src/agent/agent_context.ts";
import { releaseMachine } from "../../src/agent/machines.ts";
import { prepare } from "../../src/agent/prepare.ts";
import type { MachineWishes } from "../../src/agent/prepare_machine.ts";
import { ShimError } from "../../src/errors.ts";
import { nodeFileSystem } from "../../src/host/file_system.ts";
import type { Reference } from "../../src/image/reference.ts";
import { parseMachineId } from "../../src/machine/machine_id.ts";
import { MachineStore } from "../../src/machine/machine_store.ts";
import { openAgent } from "../support/agent_kit.ts";
import { type Fault, FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
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
async function openScene(): Promise<Scene> {
  const root = join(temporary(), "root");
  await mkdir(root, { mode: 0o700 });
  const context = await openAgent(root, { libvirtUri: "test:///default" });
  const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs(300 * 1024));
  await prepare(context, prepareWish(reference, null));
  return { context, reference };
}

/** The same root through a file system that fails; opening it is not what is tested. */
async function withFault(
  { context }: Scene,
  fault?: Fault,
): Promise<{ faulty: AgentContext; operations: () => number }> {
  const healthy = new FaultyFileSystem(nodeFileSystem);
  await MachineStore.open({ rootDirectory: context.rootDirectory, groupId: null, fileSystem: healthy });
  const opening = healthy.operations.length;
  const fileSystem = new FaultyFileSystem(nodeFileSystem, fault && { ...fault, at: fault.at + opening });
  const machines = await MachineStore.open({
    rootDirectory: context.rootDirectory,
    groupId: null,
    fileSystem,
  });
  return { faulty: { ...context, machines }, operations: () => fileSystem.operations.length - opening };
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
  verb: "prepare" | "release",
): Promise<number> {
  const scene = await openScene();
  const { context, reference } = scene;
  const wish = prepareWish(reference, machine);
  const names = () => readdir(join(context.rootDirectory, "machines"));
  const run = async (each: AgentContext) =>
    await (verb === "prepare" ? prepare(each, wish) : releaseMachine(each, "vm-1"));
  const before = async () => {
    if (verb === "release") await prepare(context, wish);
  };
  await before();
  const counted = await withFault(scene);
  await run(counted.faulty);
  const count = counted.operations();
  for (let at = 0; at < count; at++) {
    if ((await names()).includes("vm-1")) await context.machines.remove(parseMachineId("vm-1"));
    await before();
    const { faulty } = await withFault(scene, { at, errno });
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
      const count = await enumerate(errno, { clone, diskSizeBytes: 512 * 1024 }, "prepare");
      expect(count).toBeGreaterThan(40);
    },
    600_000,
  );

  it.each(ERRNOS)(
    "%s at any operation of giving it up leaves it whole or gone, and the next call completes",
    async (errno) => {
      expect(await enumerate(errno, { clone: "overlay" }, "release")).toBeGreaterThan(20);
    },
    600_000,
  );
});
