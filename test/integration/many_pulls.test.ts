/** Several real processes that pull from a real registry into one root, and what passes over the wire. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { bootshim, bootshimJson, startBootshim } from "../support/bootshim_command.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { osImage, publishLayout, randomKernel } from "../support/os_image.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "../support/registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";

const MIB = 1024 * 1024;
/** CO01 asks for 64; the lane takes fewer, because each is a process of some 100 MB. */
const PROCESSES = Number(process.env["BOOTSHIM_PULLERS"] ?? "8");
const IMAGE_BYTES = 48 * MIB;
/** CO19 says a minute; what can go wrong goes wrong in seconds, too, when the sender's buffers are full. */
const STOPPED_MS = Number(process.env["BOOTSHIM_STOPPED_MS"] ?? "5000");

let work: string;
let registry: RegistryServer;
let proxy: RegistryProxy;
let groupId: { groupId?: number };

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-pulls-"));
  registry = await startRegistryServer();
  proxy = await startRegistryProxy(registry.host);
  const id = await qemuGroupId();
  groupId = id === null ? {} : { groupId: id };
});

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
  await rm(work, { recursive: true, force: true });
});

const newRoot = () => ({ root: join(work, randomWord()) });

/** An image that only this test has, in the registry; named as the proxy offers it. */
async function publish(): Promise<{ name: string; layerBytes: number }> {
  const initramfs = new Uint8Array([...new TextEncoder().encode("070701"), ...randomBytes(1000)]);
  const rootfs = new Uint8Array(randomBytes(IMAGE_BYTES));
  const image = osImage({ kernel: randomKernel(), initramfs, rootfs });
  const directory = join(work, randomWord());
  await publishLayout(directory, [image]);
  const path = `os/${randomWord().toLowerCase()}:1`;
  const target = newRoot();
  await bootshimJson(["import", `oci:${directory}`, "--tag", `${registry.host}/${path}`], target);
  await bootshimJson(["push", `${registry.host}/${path}`], target);
  await rm(target.root, { recursive: true });
  const layerBytes = Object.values(image.layers).reduce((sum, { bytes }) => sum + bytes.length, 0);
  return { name: `${proxy.host}/${path}`, layerBytes };
}

async function exitOf(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, "exit");
  return code;
}

describe("several processes that pull one image", () => {
  it("CO01 move its bytes once: 1.05 times at most", async () => {
    const { name, layerBytes } = await publish();
    const options = newRoot();
    const before = proxy.sentBytes;
    const blobs = proxy.requests.length;
    proxy.pace(16 * MIB);
    const ended = await Promise.all(
      Array.from({ length: PROCESSES }, () => bootshim(["pull", name, "-o", "json"], options)),
    );
    proxy.pace(undefined);
    expect(ended.map(({ exitCode }) => exitCode)).toEqual(Array(PROCESSES).fill(0));
    const sentBytes = proxy.sentBytes - before;
    const gets = proxy.requests.slice(blobs).filter((each) => /^GET .*\/blobs\//.test(each)).length;
    console.log(
      `${PROCESSES} processes, ${layerBytes} bytes of layers: ${sentBytes} bytes sent (${
        (sentBytes / layerBytes).toFixed(4)
      }), ${gets} requests for blobs`,
    );
    expect(sentBytes).toBeLessThanOrEqual(1.05 * layerBytes);
    expect(layoutProblems(options.root, groupId)).toEqual([]);
  });

  it("CO02 CO04 go on when those who fetch are killed or stopped by their users: no byte twice but a few", async () => {
    const { name, layerBytes } = await publish();
    const options = newRoot();
    const before = proxy.sentBytes;
    proxy.pace(8 * MIB);
    const children = Array.from({ length: 6 }, () => startBootshim(["pull", name, "-q"], options));
    const exits = children.map(exitOf);
    for (const [i, signal] of (["SIGKILL", "SIGTERM", "SIGKILL", "SIGINT"] as const).entries()) {
      const goal = before + (i + 1) * IMAGE_BYTES / 6;
      while (proxy.sentBytes < goal) await new Promise((resolve) => setTimeout(resolve, 20));
      // Whoever it is: the one that fetches, or one that waits.
      children[i]?.kill(signal);
      await exits[i];
    }
    proxy.pace(undefined);
    expect(await Promise.all(exits.slice(4))).toEqual([0, 0]);
    expect(proxy.sentBytes - before).toBeLessThanOrEqual(1.05 * layerBytes + 4 * 3 * MIB);
    expect(layoutProblems(options.root, groupId)).toEqual([]);
  });

  it("CO19 a pull that was stopped for a while ends well", async () => {
    const { name } = await publish();
    const options = newRoot();
    const before = proxy.sentBytes;
    proxy.pace(16 * MIB);
    const child = startBootshim(["pull", name, "-q"], options);
    const exit = exitOf(child);
    while (proxy.sentBytes - before < 8 * MIB) await new Promise((resolve) => setTimeout(resolve, 20));
    const pid = child.pid ?? Number.NaN;
    process.kill(pid, "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, STOPPED_MS));
    process.kill(pid, "SIGCONT");
    proxy.pace(undefined);
    expect(await exit).toBe(0);
    expect(layoutProblems(options.root, groupId)).toEqual([]);
    expect(await readdir(join(options.root, "ingest"))).toEqual([]);
  });
});
