import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { requireMachine } from "../../../src/agent/domains.ts";
import { releaseMachine } from "../../../src/agent/machines.ts";
import { parseMachineId } from "../../../src/machine/machine_id.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { failureOf } from "../../support/failures.ts";
import { buildOf, randomRecord } from "../../support/machine_kit.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const id = parseMachineId("vm-1");

describe("releaseMachine", () => {
  it.each([
    ["a record that is no JSON", "no record"],
    ["an empty record", null],
    ["a document that is not ours", undefined],
  ])("gives up a machine with %s, which nothing else can use", async (_case, text) => {
    const notes: string[] = [];
    const context = await openAgent(join(temporary(), "root"), { notes });
    await context.machines.create(id, buildOf(randomRecord(id)));
    const path = join(context.machines.directoryOf(id), "machine.json");
    if (typeof text === "string") await writeFile(path, text);
    if (text === null) await writeFile(path, "");
    const { code, details } = await failureOf(requireMachine(context, id));
    expect([code, details.remedy]).toEqual(["CACHE_LAYOUT_INVALID", expect.stringContaining("release")]);
    expect(await releaseMachine(context, id)).toEqual({ id });
    expect(notes).toHaveLength(1);
    expect(await readdir(join(context.rootDirectory, "machines"))).toEqual([]);
  });
});
