/** What the gate found a cached disk to be is kept beside it, for as long as nobody changed it. */
import { chmod, readdir, readFile, rename, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { KnownFindings } from "../../../src/agent/known_findings.ts";
import { prepare } from "../../../src/agent/prepare.ts";
import { ContentStore } from "../../../src/content/content_store.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { digestEncoded, parseDigest } from "../../../src/image/digest.ts";
import type { Reference } from "../../../src/image/reference.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { failureOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { prepareWish, publishRootfs, randomRootfs } from "../../support/machine_wish.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
let context: AgentContext;
let fileSystem: FaultyFileSystem;
let reference: Reference;
let rootfs: string;
let verdict: string;
/** By what is kept on disk, and not by what this process has found out before. */
const prepareIt = () => prepare({ ...context, findings: new KnownFindings() }, prepareWish(reference, null));
/** How often the blob was read since asked last, by who decides what it is. */
const reads = () => fileSystem.operations.splice(0).filter((each) => each === `read ${rootfs}`).length;
const storedDisk = async () => JSON.parse(await readFile(verdict, "utf8")).disk;

/** A context that remembers nothing of the one before. */
async function anotherProcess(): Promise<void> {
  const rootDirectory = join(temporary(), "root");
  fileSystem = new FaultyFileSystem(nodeFileSystem);
  // Hashing has a file system of its own here: it must read everything.
  const content = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
  context = await openAgent(rootDirectory, { content });
}

beforeEach(async () => {
  const rootDirectory = join(temporary(), "root");
  await anotherProcess();
  reference = await publishRootfs(join(temporary(), "layout"), randomRootfs());
  const { layers } = await prepareIt();
  const layer = layers.find(({ role }) => role === "rootfs");
  rootfs = layer?.path ?? "";
  verdict = join(
    rootDirectory,
    "verdicts",
    "sha256",
    `${digestEncoded(parseDigest(layer?.digest ?? ""))}.json`,
  );
  expect(reads()).toBeGreaterThan(0);
});

describe("the gate's verdict on a cached disk", () => {
  it("is stored beside it: a second prepare answers the same and reads nothing of it", async () => {
    expect((await storedDisk()).judged).toEqual({
      format: "raw",
      virtualSizeBytes: randomRootfs().length,
      content: { kind: "file-system", name: "ext4" },
    });
    const before = await prepareIt();
    expect(reads()).toBe(0);
    await anotherProcess();
    expect(await prepareIt()).toEqual(before);
    expect(reads()).toBe(0);
    await rm(verdict);
    // A process goes on by what it knows; the next one finds out anew.
    expect(await prepareIt()).toEqual(before);
    expect(reads()).toBe(0);
    await anotherProcess();
    expect(await prepareIt()).toEqual(before);
    expect(reads()).toBeGreaterThan(0);
    await prepareIt();
    expect(reads()).toBe(0);
  });

  it.each<[string, () => Promise<unknown>]>([
    ["other times", () => utimes(rootfs, 1, 1)],
    ["another inode", async () => {
      await writeFile(`${rootfs}.new`, await readFile(rootfs), { mode: 0o400 });
      await rename(`${rootfs}.new`, rootfs);
    }],
  ])("does not count for a file with %s, though its bytes are right", async (_what, change) => {
    await change();
    await prepareIt();
    expect(reads()).toBeGreaterThan(0);
    await prepareIt();
    expect(reads()).toBe(0);
  });

  it("does not count for changed bytes: they are found to be wrong, fetched again and judged anew", async () => {
    await chmod(rootfs, 0o600);
    const bytes = await readFile(rootfs);
    // What a guest, or whoever may write there, would like the next reader to believe.
    bytes.set(new TextEncoder().encode("QFI\xfb"), 0);
    await writeFile(rootfs, bytes);
    await chmod(rootfs, 0o400);
    const { transferredBytes, machine } = await prepareIt();
    expect([transferredBytes, machine]).toEqual([bytes.length, null]);
    expect(reads()).toBeGreaterThan(0);
    expect((await storedDisk()).judged.format).toBe("raw");
  });

  it.each<[string, (text: string) => string]>([
    ["of another edition of the gate", (text) => text.replace(/"edition":\d+/, '"edition":0')],
    ["asked for another media type", (text) => text.replace(/"mediaType":"/, '"mediaType":"x')],
    ["asked for another role", (text) => text.replace('"role":"rootfs"', '"role":"squashfs"')],
    ["of another boot", (text) => text.replace(/"bootId":"./, '"bootId":"x')],
    ["that knows another format", (text) => text.replace('"format":"raw"', '"format":"vmdk"')],
    ["that is no JSON", (text) => text.slice(1)],
    ["with a field we do not know", (text) => text.replace('"judged":{', '"judged":{"x":1,')],
  ])("does not count when it is one %s", async (_what, edit) => {
    const text = await readFile(verdict, "utf8");
    expect(edit(text)).not.toBe(text);
    await writeFile(verdict, edit(text));
    await prepareIt();
    expect(reads()).toBeGreaterThan(0);
    expect((await storedDisk()).judged.format).toBe("raw");
  });

  it("is none when it is a refusal: that is found out each time, and nothing of it is stored", async () => {
    const bytes = randomRootfs();
    bytes.set(new TextEncoder().encode("KDMV"), 0);
    reference = await publishRootfs(join(temporary(), "hostile"), bytes);
    for (let turn = 0; turn < 2; turn++) {
      expect((await failureOf(prepareIt())).code).toMatch(/^FORMAT_/);
    }
    const directory = join(context.rootDirectory, "verdicts", "sha256");
    const stored = await Promise.all(
      (await readdir(directory)).map((name) => readFile(join(directory, name), "utf8")),
    );
    expect(stored.filter((text) => text.includes('"disk"'))).toHaveLength(1);
  });
});
