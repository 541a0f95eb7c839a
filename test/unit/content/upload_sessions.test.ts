import { readdir, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UploadSessions } from "../../../src/content/upload_sessions.ts";
import { parseDigest } from "../../../src/image/digest.ts";
import { randomDigest } from "../../support/image_documents.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const open = () => new UploadSessions({ rootDirectory: temporary() });
const keyOf = () => ({ repository: `h.io/os/${randomWord()}`, digest: parseDigest(randomDigest()) });
const sessionOf = () => ({ url: `https://h.io/v2/uploads/${randomWord()}`, chunkBytes: 7 });
const folder = () => join(temporary(), "uploads");
const onlyFile = async () => join(folder(), (await readdir(folder()))[0] ?? "");

describe("UploadSessions", () => {
  it("keeps one session for each blob and repository, for this user alone, and gives it once", async () => {
    const [one, two] = [keyOf(), keyOf()];
    const [session, other] = [sessionOf(), sessionOf()];
    await open().memoryOf(one).keep(sessionOf());
    await open().memoryOf(one).keep(session);
    expect((await stat(folder())).mode & 0o777).toBe(0o700);
    expect((await stat(await onlyFile())).mode & 0o777).toBe(0o600);
    await open().memoryOf({ ...two, digest: one.digest }).keep(other);
    expect(await open().memoryOf(one).recall()).toEqual(session);
    expect(await open().memoryOf(one).recall()).toBeUndefined();
    expect(await open().memoryOf({ ...two, digest: one.digest }).recall()).toEqual(other);
  });

  it("knows nothing where nothing was kept, and nothing that was forgotten", async () => {
    const memory = open().memoryOf(keyOf());
    await memory.forget();
    expect(await memory.recall()).toBeUndefined();
    await memory.keep(sessionOf());
    await memory.forget();
    expect(await memory.recall()).toBeUndefined();
    expect(await readdir(folder())).toEqual([]);
  });

  it.each<[string, (key: ReturnType<typeof keyOf>) => string]>([
    ["no JSON", () => "{"],
    ["no record", () => "{}"],
    ["of another version", (key) => JSON.stringify({ schemaVersion: 2, ...key, ...sessionOf() })],
    [
      "of another blob",
      (key) => JSON.stringify({ schemaVersion: 1, ...key, digest: randomDigest(), ...sessionOf() }),
    ],
    ["of another repository", () => JSON.stringify({ schemaVersion: 1, ...keyOf(), ...sessionOf() })],
    [
      "too large",
      (key) => JSON.stringify({ schemaVersion: 1, ...key, ...sessionOf(), x: "x".repeat(70_000) }),
    ],
  ])("does away with a record that is %s", async (_case, text) => {
    const key = keyOf();
    await open().memoryOf(key).keep(sessionOf());
    await writeFile(await onlyFile(), text(key));
    expect(await open().memoryOf(key).recall()).toBeUndefined();
    expect(await readdir(folder())).toEqual([]);
  });

  it("follows no link", async () => {
    const [key, other] = [keyOf(), keyOf()];
    await open().memoryOf(key).keep(sessionOf());
    const file = await onlyFile();
    await open().memoryOf(key).forget();
    const target = join(temporary(), "target");
    await writeFile(target, JSON.stringify({ schemaVersion: 1, ...key, ...sessionOf() }));
    await symlink(target, file);
    expect(await open().memoryOf(key).recall()).toBeUndefined();
    expect((await stat(target)).isFile()).toBe(true);
    expect(await open().memoryOf(other).recall()).toBeUndefined();
  });

  it("sweeps what is older than a week", async () => {
    const nowMs = Date.now();
    await open().sweep(nowMs);
    const [old, young] = [keyOf(), keyOf()];
    await open().memoryOf(old).keep(sessionOf());
    const eightDaysAgo = new Date(nowMs - 8 * 24 * 3600 * 1000);
    await utimes(await onlyFile(), eightDaysAgo, eightDaysAgo);
    const session = sessionOf();
    await open().memoryOf(young).keep(session);
    await open().sweep(nowMs);
    expect(await open().memoryOf(old).recall()).toBeUndefined();
    expect(await open().memoryOf(young).recall()).toEqual(session);
  });
});
