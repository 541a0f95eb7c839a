/**
 * What the service does under load: one image for 200 machines at once, warm prepares, and 50 operations cut off by
 * SIGKILL. Figures are printed, not asserted; what must hold on any machine is.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { publishDemo, type PublishedDemo } from "../support/api_kit.ts";
import { type RegistryProxy } from "../support/registry_proxy.ts";
import { lineOf, startScript } from "../support/child_script.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let demo: PublishedDemo;
let proxy: RegistryProxy;
let reference: string;

beforeAll(async () => {
  demo = await publishDemo();
  ({ work, proxy, reference } = demo);
});

afterAll(async () => {
  await demo.stop();
});

async function start(name: string): Promise<ServiceProcess> {
  const config = join(work, "config.toml");
  await writeFile(
    config,
    `[registry]\ninsecure = ["${proxy.host}"]\n`,
  );
  return await startService({ root: join(work, name), environment: { BOOTSHIM_CONFIG: config } });
}

function prepareMachine(service: ServiceProcess, id: string) {
  return service.ask(`/v1/machines/${id}`, {
    method: "PUT",
    body: { reference, machine: { network: "none" } },
  });
}

const sortedMs = (durations: number[]) => durations.toSorted((a, b) => a - b);
const at = (sorted: number[], share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

it(
  "prepares 200 machines of one uncached image with one transfer, and answers health meanwhile",
  async () => {
    const service = await start("crowd");
    try {
      proxy.requests.length = 0;
      const probe = startScript("health_probe_script.ts", [service.socketPath]);
      await lineOf(probe, /^asks$/);
      const startMs = performance.now();
      const answers = await Promise.all(
        Array.from({ length: 200 }, (_, index) => prepareMachine(service, `vm-${index}`)),
      );
      const elapsedMs = performance.now() - startMs;
      const told = lineOf(probe, /^\[/);
      probe.kill("SIGTERM");
      const waits = z.array(z.number()).parse(JSON.parse(await told));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
      const { layers } = prepareDocument.parse(answers[0]?.json);
      const imageBytes = layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      // Each byte once, whatever the number of connections it came over; documents and tries at more connections beside.
      expect(proxy.sentBytes).toBeLessThan(imageBytes * 1.2);
      const sorted = sortedMs(waits);
      const peak = /VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${service.pid}/status`, "utf8"))?.[1];
      const warm: number[] = [];
      for (let index = 0; index < 200; index++) {
        const askedMs = performance.now();
        const { json } = await service.ask("/v1/prepare", { body: { reference } });
        warm.push(performance.now() - askedMs);
        expect(json).toMatchObject({ cached: true });
      }
      console.log(JSON.stringify({
        elapsedMs: Math.round(elapsedMs),
        sentBytes: proxy.sentBytes,
        imageBytes,
        healthP50Ms: at(sorted, 0.5),
        healthP99Ms: at(sorted, 0.99),
        peakResidentMib: Number(peak) / 1024,
        warmMedianMs: at(sortedMs(warm), 0.5),
        warmP99Ms: at(sortedMs(warm), 0.99),
      }));
    } finally {
      expect(await service.stop()).toBe(0);
    }
  },
  300_000,
);

it("AP12 SIGKILL in the middle of 50 operations loses nothing: each request again ends right", async () => {
  const killed = await start("killed");
  const ids = Array.from({ length: 50 }, (_, index) => `vm-${index}`);
  const lost = ids.map((id) => prepareMachine(killed, id).catch(() => undefined));
  for (let tries = 0; tries < 1000; tries++) {
    const { json } = await killed.ask("/v1/machines");
    if (Array.isArray(json) && json.length >= 3) break;
    await wait(5);
  }
  await killed.kill();
  await Promise.all(lost);
  const next = await start("killed");
  try {
    const { json: before } = await next.ask("/v1/machines");
    const kept = before as { id: string; uuid: string }[];
    expect(kept.length).toBeGreaterThan(0);
    const answers = await Promise.all(ids.map((id) => prepareMachine(next, id)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const after = (await next.ask("/v1/machines")).json as { id: string; uuid: string }[];
    expect(after.map(({ id }) => id).sort()).toEqual(ids.toSorted());
    expect(new Set(after.map(({ uuid }) => uuid)).size).toBe(50);
    // What was whole before is the same machine still.
    for (const machine of kept) expect(after).toContainEqual(machine);
    console.log(`machines whole at SIGKILL: ${kept.length} of 50`);
  } finally {
    expect(await next.stop()).toBe(0);
  }
}, 300_000);
