/** The machine store on a file system that fails or stops: a machine is there whole or not at all. */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nodeFileSystem } from "../../src/host/file_system.ts";
import { parseMachineId } from "../../src/machine/machine_id.ts";
import { MachineStore } from "../../src/machine/machine_store.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { buildOf, randomRecord } from "../support/machine_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const id = parseMachineId("vm-1");

describe("MachineStore under faults", () => {
  /** Operations of one create on the healthy file system, so that each can be made the faulty one. */
  async function countOperations(): Promise<number> {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const rootDirectory = join(temporary(), "counted");
    const counted = await MachineStore.open({ rootDirectory, groupId: null, fileSystem });
    await counted.create(id, buildOf(randomRecord(id)));
    return fileSystem.operations.length;
  }

  it.each(["EIO", "ENOSPC", "killed"])(
    "DC19 %s at any operation leaves a whole machine or none, and the next call works",
    async (errno) => {
      const count = await countOperations();
      for (let at = 0; at < count; at++) {
        const rootDirectory = join(temporary(), `at-${at}`);
        await mkdir(rootDirectory, { mode: 0o700 });
        const record = randomRecord(id);
        const run = async () => {
          const faulty = await MachineStore.open({
            rootDirectory,
            groupId: null,
            fileSystem: new FaultyFileSystem(nodeFileSystem, { at, errno }),
          });
          await faulty.create(id, buildOf(record));
        };
        await run().catch((error: unknown) => error);
        const healthy = await MachineStore.open({ rootDirectory, groupId: null });
        const left = await readdir(join(rootDirectory, "machines"));
        if (errno !== "killed") expect(left.filter((name) => name !== id)).toEqual([]);
        if (left.includes(id)) expect(await healthy.read(id)).toEqual(record);
        const { created } = await healthy.create(id, buildOf(record));
        expect(created).toBe(!left.includes(id));
        expect(await readdir(join(rootDirectory, "machines"))).toEqual([id]);
        expect(await healthy.read(id)).toEqual(record);
      }
    },
  );

  it("a kill at any operation of remove leaves a whole machine or none", async () => {
    for (let at = 0; at < 40; at++) {
      const rootDirectory = join(temporary(), `at-${at}`);
      const healthy = await MachineStore.open({ rootDirectory, groupId: null });
      const record = randomRecord(id);
      await healthy.create(id, buildOf(record));
      const run = async () => {
        const faulty = await MachineStore.open({
          rootDirectory,
          groupId: null,
          fileSystem: new FaultyFileSystem(nodeFileSystem, { at, errno: "killed" }),
        });
        await faulty.remove(id);
      };
      await run().catch((error: unknown) => error);
      const { machines, unreadable } = await healthy.list();
      expect(unreadable).toEqual([]);
      if (machines.length > 0) {
        expect([machines, await readdir(join(rootDirectory, "machines"))]).toEqual([[record], [id]]);
      }
      await healthy.create(id, buildOf(record));
      expect(await readdir(join(rootDirectory, "machines"))).toEqual([id]);
    }
  });
});
