/** What layers hold is found out once in a process, as long as their bytes are what their digests say. */
import { appendFile, chmod } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { prepare } from "../../../src/agent/prepare.ts";
import { ContentStore } from "../../../src/content/content_store.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { codeOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../../support/machine_wish.ts";
import { backing } from "../../support/hostile_disks.ts";
import { qcow2File } from "../../support/qcow2_bytes.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

async function openRecording() {
  const rootDirectory = join(temporary(), "root");
  const fileSystem = new FaultyFileSystem(nodeFileSystem);
  const content = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
  return { context: await openAgent(rootDirectory, { content }), fileSystem };
}

it("reads no layer of an image that was prepared before, and all of one that was damaged since", async () => {
  const { context, fileSystem } = await openRecording();
  const reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
  const before = await prepare(context, prepareWish(reference, null));
  const layers = before.layers.map(({ path }) => path);
  const touched = () =>
    fileSystem.operations.splice(0).filter((each) => layers.some((path) => each === `open ${path}`));
  expect(touched().length).toBeGreaterThan(0);
  expect(await prepare(context, prepareWish(reference, null))).toEqual({
    ...before,
    cached: true,
    transferredBytes: 0,
  });
  expect(touched()).toEqual([]);
  const [damaged = ""] = layers;
  await chmod(damaged, 0o600);
  await appendFile(damaged, "x");
  const after = await prepare(context, prepareWish(reference, null));
  expect(after.transferredBytes).toBeGreaterThan(0);
  expect(after.boot).toEqual(before.boot);
});

it("keeps no refusal: it is found out each time", async () => {
  const { context, fileSystem } = await openRecording();
  const reference = await publishRootfs(join(temporary(), "layout"), qcow2File(backing("/etc/shadow")));
  const codes = [];
  for (let number = 0; number < 2; number++) {
    fileSystem.operations.splice(0);
    codes.push(await codeOf(prepare(context, prepareWish(reference, null))));
    expect(fileSystem.operations.filter((each) => each.startsWith("open ") && each.includes("/blobs/"))).not
      .toEqual([]);
  }
  expect(codes).toEqual(["FORMAT_UNSAFE", "FORMAT_UNSAFE"]);
});
