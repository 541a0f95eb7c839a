/** A push that is killed in the middle of a large blob, and done again by another process. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { bootshimJson, startBootshim } from "../support/bootshim_command.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

const CHUNK_BYTES = 64 * 1024 * 1024;
const REST_BYTES = 512 * 1000;

let work: string;
let registry: RegistryServer;
let proxy: RegistryProxy;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-push-resumed-"));
  registry = await startRegistryServer();
  proxy = await startRegistryProxy(registry.host);
});

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
  await rm(work, { recursive: true, force: true });
});

it("goes on after the last chunk that the registry had confirmed, and sends none of them again", async () => {
  const options = { root: join(work, "root") };
  const name = `${proxy.host}/os/${randomWord()}:1`;
  const disk = join(work, "disk.raw");
  await writeFile(disk, randomBytes(2 * CHUNK_BYTES + REST_BYTES));
  const built = await bootshimJson(
    ["build", "--tag", name, "--config", `arch=amd64,rootfs=${disk}`],
    options,
  );

  let chunks = 0;
  proxy.tamper((_path, method) => method === "PATCH" && ++chunks > 2 ? "hold" : "none");
  const killed = startBootshim(["push", name, "--quiet"], options);
  const closed = once(killed, "close");
  await vi.waitFor(() => expect(chunks).toBe(3), { timeout: 60_000 });
  killed.kill("SIGKILL");
  await closed;

  const uploads = join(options.root, "uploads");
  const [record = ""] = await readdir(uploads);
  expect([(await stat(uploads)).mode & 0o777, (await stat(join(uploads, record))).mode & 0o777]).toEqual([
    0o700,
    0o600,
  ]);

  proxy.tamper(() => "none");
  const before = { bytes: proxy.receivedBytes, requests: proxy.requests.length };
  expect(await bootshimJson(["push", name], options)).toMatchObject({
    digest: (built as { digest: string }).digest,
  });
  const sentBytes = proxy.receivedBytes - before.bytes;
  expect(sentBytes).toBeGreaterThanOrEqual(REST_BYTES);
  // The rest, and the image's documents.
  expect(sentBytes).toBeLessThan(REST_BYTES + 64 * 1024);
  const methods = proxy.requests.slice(before.requests).map((request) => request.split(" ")[0]);
  expect(methods.filter((method) => method === "PATCH")).toHaveLength(1);
  expect(await readdir(uploads)).toEqual([]);

  // It is the very image: another host gets it, and checks it.
  const other = { root: join(work, "other") };
  expect(await bootshimJson(["pull", name], other)).toMatchObject({
    digest: (built as { digest: string }).digest,
    transferredBytes: expect.any(Number),
  });
});
