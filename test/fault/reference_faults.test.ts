/** Updates of names on a file system that fails or stops: the index is the old or the new one, and always to be had. */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ContentStore } from "../../src/content/content_store.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import { randomManifest } from "../support/blobs.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { randomWord } from "../support/random_word.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const word = randomWord();
const name = (tag: string) => `127.0.0.1:5000/${word}:${tag}`;
const [first, second] = [randomManifest(), randomManifest()];
const open = (rootDirectory: string, fileSystem: FileSystem = nodeFileSystem) =>
  ContentStore.open({ rootDirectory, groupId: null, fileSystem });

/** `a` stands for the first, `b` for the second. */
async function makeRoot(label: string, isDamaged: boolean): Promise<string> {
  const rootDirectory = join(temporary(), label);
  const store = await open(rootDirectory);
  for (const document of [first, second]) await store.ingestBytes(document);
  await store.setReference(name("a"), first.descriptor);
  await store.setReference(name("b"), second.descriptor);
  if (isDamaged) await writeFile(join(rootDirectory, "images", "index.json"), '{"torn');
  return rootDirectory;
}

type Change = (store: ContentStore) => Promise<void>;
const changes: readonly [string, Change, Record<string, string | undefined>][] = [
  ["moving a name", (store) => store.setReference(name("a"), second.descriptor), {
    a: second.descriptor.digest,
    b: second.descriptor.digest,
  }],
  ["a new name", (store) => store.setReference(name("c"), first.descriptor), {
    a: first.descriptor.digest,
    b: second.descriptor.digest,
    c: first.descriptor.digest,
  }],
  ["forgetting a name", (store) => store.removeReference(name("a")), { b: second.descriptor.digest }],
];

async function namesOf(rootDirectory: string): Promise<Record<string, string>> {
  const references = await (await open(rootDirectory)).references();
  return Object.fromEntries(
    references.map((each) => [each.name.split(":")[2] ?? "", each.descriptor.digest]),
  );
}

const before = { a: first.descriptor.digest, b: second.descriptor.digest };
const faults = ["ENOSPC", "EIO", "EMFILE", "EROFS", "killed"];

describe.each([
  ["sound", false],
  ["damaged", true],
])("an index that is %s", (_state, isDamaged) => {
  it.each(changes)(
    "DC02 DC05 DC12 %s, with a failure or a kill at any operation: old or new, never torn, and again it works",
    async (_change, change, after) => {
      const counting = new FaultyFileSystem(nodeFileSystem);
      await change(await open(await makeRoot("counted", isDamaged), counting));
      const count = counting.operations.length;
      expect(count).toBeGreaterThan(30);
      for (const errno of isDamaged ? ["EIO", "killed"] : faults) {
        // Failures that return take the same ways out: in the short lane they share the operations.
        const isShared = errno !== "killed" && !isDamaged && process.env["BOOTSHIM_FUZZ_RUNS"] === undefined;
        const step = isShared ? faults.length - 1 : 1;
        for (let at = isShared ? faults.indexOf(errno) : 0; at < count; at += step) {
          const rootDirectory = await makeRoot(`${errno}-${at}`, isDamaged);
          const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno });
          const outcome = await open(rootDirectory, fileSystem).then(change).then(
            () => "done",
            () => "failed",
          );
          const found = await namesOf(rootDirectory);
          const what = `${errno} at ${at}: ${fileSystem.operations[at]}`;
          // A record written for an index that never came is what a damaged index is made from: a step further, too.
          expect([what, [before, after]]).toEqual([what, expect.arrayContaining([found])]);
          if (outcome === "done") expect([what, found]).toEqual([what, after]);
          expect([what, layoutProblems(rootDirectory, { isAfterKill: true })]).toEqual([what, []]);
          await change(await open(rootDirectory));
          expect(await namesOf(rootDirectory)).toEqual(after);
          expect(layoutProblems(rootDirectory, { areRecordsAhead: true })).toEqual([]);
          JSON.parse(readFileSync(join(rootDirectory, "images", "index.json"), "utf8"));
        }
      }
    },
  );
});
