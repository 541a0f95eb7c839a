/** Callers that vanish and services that end in the middle of a pull: an image large enough that there is a middle. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { publishDemo, type PublishedDemo } from "../support/api_kit.ts";
import { bootshimJson } from "../support/bootshim_command.ts";
import { randomWord } from "../support/random_word.ts";
import { callRaw } from "../support/raw_http.ts";
import { type RegistryProxy } from "../support/registry_proxy.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let demo: PublishedDemo;
let proxy: RegistryProxy;
let reference: string;
let imageBytes: number;

beforeAll(async () => {
  demo = await publishDemo();
  ({ work, proxy, reference } = demo);
  const { layers } = prepareDocument.parse(
    await bootshimJson(["prepare", `${demo.registry.host}/os/demo:1`], demo.maker),
  );
  imageBytes = layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
});
afterEach(() => proxy.pace(undefined));
afterAll(async () => {
  await demo?.stop();
});

async function start(name: string): Promise<ServiceProcess> {
  const config = join(work, "config.toml");
  await writeFile(config, `[registry]\ninsecure = ["${proxy.host}"]\n`);
  return await startService({ root: join(work, name), environment: { BOOTSHIM_CONFIG: config } });
}

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !await what(); tries++) {
    if (tries > 1500) throw new Error("it did not come to that");
    await wait(20);
  }
}

/** Asks for the image, and resolves when so much of it has come that there is something to lose, and as much to come. */
async function pullToTheMiddle(service: ServiceProcess): Promise<void> {
  const begunBytes = proxy.sentBytes;
  proxy.pace(3_000_000);
  void service.ask("/v1/prepare", { body: { reference } }).catch(() => undefined);
  await until(() => proxy.sentBytes - begunBytes > imageBytes / 2);
}

describe("AP09 a caller that vanishes in the middle of a pull", () => {
  it("stops nothing: the next joins it, and each byte comes once", async () => {
    const service = await start("vanished");
    try {
      const id = `gone-${randomWord()}`;
      const begunBytes = proxy.sentBytes;
      proxy.pace(3_000_000);
      const body = JSON.stringify({ reference, machine: { id, network: "none" } });
      const caller = await callRaw(
        service.socketPath,
        `POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      await until(() => proxy.sentBytes - begunBytes > imageBytes / 3);
      caller.socket.destroy();
      await wait(200);
      expect((await service.ask("/v1/operations")).json).toMatchObject([{ state: "running" }]);
      const { status, json } = await service.ask("/v1/prepare", { body: JSON.parse(body) });
      expect([status, json]).toMatchObject([200, { cached: false, machine: { id } }]);
      expect((await service.ask("/v1/operations")).json).toMatchObject([{ state: "succeeded" }]);
      expect(proxy.sentBytes - begunBytes).toBeLessThan(imageBytes * 1.2);
      // Once more: nothing is left to do.
      expect((await service.ask("/v1/prepare", { body: JSON.parse(body) })).json).toMatchObject({
        cached: true,
      });
    } finally {
      await service.stop();
    }
  }, 60_000);
});

describe("AP12 the end of the service in the middle of a pull", () => {
  /** How it ended: exit code, and after how long. */
  async function timed(
    ended: Promise<number | null>,
  ): Promise<{ exitCode: number | null; elapsedMs: number }> {
    const startedMs = performance.now();
    const exitCode = await ended;
    return { exitCode, elapsedMs: performance.now() - startedMs };
  }

  /** The rest comes, and not all of it again. */
  async function expectResumed(name: string, begunBytes: number): Promise<void> {
    proxy.pace(undefined);
    const cameBytes = proxy.sentBytes - begunBytes;
    const next = await start(name);
    try {
      const { status, json } = await next.ask("/v1/prepare", { body: { reference } });
      expect([status, json]).toMatchObject([200, { cached: false }]);
      const resumedBytes = proxy.sentBytes - begunBytes - cameBytes;
      console.log(`${name}: ${cameBytes} of ${imageBytes} bytes came before, ${resumedBytes} after`);
      // What was on its way is lost, and what came out of turn; no more.
      expect(resumedBytes).toBeLessThan(imageBytes * 0.8);
    } finally {
      expect(await next.stop()).toBe(0);
    }
  }

  it("by SIGTERM is 0, within ten seconds, and the next goes on where it stopped", async () => {
    const begunBytes = proxy.sentBytes;
    const service = await start("term");
    await pullToTheMiddle(service);
    const { exitCode, elapsedMs } = await timed(service.stop());
    expect(exitCode).toBe(0);
    expect(elapsedMs).toBeLessThan(10_000);
    await expectResumed("term", begunBytes);
  }, 60_000);

  it.each([0, 1500])("by SIGTERM and another %i ms later is 0, and the next goes on", async (laterMs) => {
    const name = `twice-${laterMs}`;
    const begunBytes = proxy.sentBytes;
    const service = await start(name);
    await pullToTheMiddle(service);
    // A reader of events keeps it from ending at once.
    const reader = await callRaw(service.socketPath, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    process.kill(service.pid, "SIGTERM");
    await wait(laterMs);
    const isThere = spawn("kill", ["-0", String(service.pid)], { stdio: "ignore" });
    const [code] = await once(isThere, "close");
    const { exitCode, elapsedMs } = await timed(code === 0 ? service.stop() : service.ended());
    reader.socket.destroy();
    expect(exitCode).toBe(0);
    expect(elapsedMs).toBeLessThan(10_000);
    await expectResumed(name, begunBytes);
  }, 60_000);

  it("by SIGKILL loses little: the next goes on", async () => {
    const begunBytes = proxy.sentBytes;
    const service = await start("killed");
    await pullToTheMiddle(service);
    await service.kill();
    await expectResumed("killed", begunBytes);
  }, 60_000);

  it("takes nothing new meanwhile, whoever asks", async () => {
    const service = await start("closing");
    await pullToTheMiddle(service);
    process.kill(service.pid, "SIGTERM");
    await until(async () => await service.ask("/healthz").then(() => false, () => true));
    expect(await service.ended()).toBe(0);
  }, 60_000);
});
