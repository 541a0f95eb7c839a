/** A service that is asked to end does so in time and with 0, whatever hangs and however often; and what SIGHUP cannot do. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type ApiKit, startApiKit, until } from "../support/api_kit.ts";
import { startPrivateLibvirtd } from "../support/private_libvirtd.ts";

let kit: ApiKit;

beforeAll(async () => {
  kit = await startApiKit();
});

afterAll(() => kit.stop());

it("AP12 SIGTERM again a second later, while libvirt and a registry hang, is 0 still", async () => {
  const daemon = await startPrivateLibvirtd();
  const { proxy, reference } = kit;
  const service = await kit.start("again", "", ["--connect", daemon.uri]);
  try {
    const put = await service.ask("/v1/machines/end-1", {
      method: "PUT",
      body: { reference, machine: { network: "none" } },
    });
    expect(put.status).toBe(200);
    daemon.freeze();
    proxy.tamper(() => "hold");
    const asked = [
      service.ask("/v1/machines/end-1/define", { method: "POST" }),
      service.ask("/v1/prepare", { body: { reference: `${proxy.host}/other/x:1` } }),
    ];
    const settled = Promise.allSettled(asked);
    const before = proxy.requests.length;
    await until(() => proxy.requests.length > before);
    const startMs = performance.now();
    process.kill(service.pid, "SIGTERM");
    await wait(1200);
    try {
      process.kill(service.pid, "SIGTERM");
    } catch {
      // It is gone.
    }
    expect(await service.ended()).toBe(0);
    expect(performance.now() - startMs).toBeLessThan(10_000);
    await settled;
  } finally {
    proxy.tamper(() => "none");
    daemon.thaw();
    await daemon.stop();
  }
}, 60_000);

it("SIGHUP says that limits of the service are not read again", async () => {
  const service = await kit.start("hangup", "max_running = 3");
  try {
    const config = join(kit.folder, "hangup.toml");
    await writeFile(config, "[api]\nmax_running = 3\n");
    process.kill(service.pid, "SIGHUP");
    await until(() => service.said().includes("has read its configuration again"));
    expect(service.said()).not.toContain("[api]");
    await writeFile(config, "[api]\nmax_running = 4\n");
    process.kill(service.pid, "SIGHUP");
    await until(() => service.said().includes("[api] has changed"));
  } finally {
    expect(await service.stop()).toBe(0);
  }
});
