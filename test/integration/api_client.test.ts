/** The client and the command line over a real service. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { BootshimClient, type OperationProgress } from "../../src/api/client.ts";
import { publishDemo, type PublishedDemo } from "../support/api_kit.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { failureOf } from "../support/failures.ts";
import { randomWord } from "../support/random_word.ts";
import { type RegistryProxy } from "../support/registry_proxy.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let demo: PublishedDemo;
let proxy: RegistryProxy;
let service: ServiceProcess;
let client: BootshimClient;
let reference: string;

beforeAll(async () => {
  demo = await publishDemo();
  ({ work, proxy, reference } = demo);
  const config = join(work, "config.toml");
  await writeFile(config, `[registry]\ninsecure = ["${proxy.host}"]\n`);
  service = await startService({
    root: join(work, "root"),
    environment: { BOOTSHIM_CONFIG: config },
    argv: ["--connect", "test:///default"],
  });
  client = new BootshimClient({ socketPath: service.socketPath });
});

afterAll(async () => {
  await service.stop();
  await demo.stop();
});

describe("BootshimClient", () => {
  it("prepares with progress, follows, takes the disk, defines and releases", async () => {
    proxy.pace(20_000_000);
    const seen: OperationProgress[] = [];
    const id = `vm-${randomWord()}`;
    const wish = { reference, machine: { id, network: "none" } };
    const prepared = await client.prepare(wish, { onProgress: (progress) => seen.push(progress) });
    proxy.pace(undefined);
    expect(prepared.machine?.id).toBe(id);
    expect(prepared.cached).toBe(false);
    expect(seen.some(({ phase, doneBytes }) => phase === "pulling" && doneBytes > 0)).toBe(true);
    expect(await client.prepare(wish)).toEqual({ ...prepared, cached: true, transferredBytes: 0 });
    const { machine } = await client.machine(id);
    expect(machine).toEqual(prepared.machine);
    expect(await client.domain("define", id)).toMatchObject({ id, state: "shut off" });
    expect(await client.domainXml(id)).toContain(`<name>${id}</name>`);
    expect(await client.domainXml(id, "os")).toMatch(/^<os>/);
    expect(await client.qemuCommand(id)).toEqual(machine.qemuCommand);
    expect((await client.machines()).map((each) => each.id)).toEqual([id]);
    expect(await client.release(id)).toEqual({ id });
    expect(await client.machines()).toEqual([]);
  });

  it("gives the result of an operation that is over before anybody follows it", async () => {
    const { id } = await client.beginPrepare({ reference });
    for (let tries = 0; (await client.operation(id)).state !== "succeeded"; tries++) {
      expect(tries).toBeLessThan(500);
    }
    expect(await client.follow(id)).toMatchObject({ reference });
    expect((await client.operations()).some((operation) => operation.id === id)).toBe(true);
  });

  it("throws the service's own errors, of operations as of requests", async () => {
    const wish = { reference: `${proxy.host}/no/such:1` };
    for (const options of [{}, { onProgress: () => {} }]) {
      expect(await failureOf(client.prepare(wish, options))).toMatchObject({ code: "REGISTRY_NOT_FOUND" });
    }
    expect(await failureOf(client.machine("none"))).toMatchObject({ code: "MACHINE_NOT_FOUND" });
    const nobody = new BootshimClient({ socketPath: join(work, "nobody") });
    expect(await failureOf(nobody.version())).toMatchObject({ code: "IO_ERROR" });
  });

  it("tells the host, one image, readiness and numbers", async () => {
    const { digest } = await client.prepare({ reference });
    expect((await client.host()).length).toBeGreaterThan(3);
    expect(await client.image(digest)).toMatchObject([{ reference, digest }]);
    expect(await failureOf(client.image(`sha256:${"0".repeat(64)}`))).toMatchObject({
      code: "IMAGE_NOT_FOUND",
    });
    expect(await client.isReady()).toBe(true);
    expect(await client.metrics()).toMatch(/^bootshim_requests_total\{/m);
  });

  it("is told that a request is too large, and lives", async () => {
    const machine = { id: "large", userData: "a".repeat(40 * 2 ** 20) };
    expect(await failureOf(client.prepare({ reference, machine }))).toMatchObject({ code: "LIMIT_EXCEEDED" });
    expect(await client.isReady()).toBe(true);
  });

  it("cancels, and reads events", async () => {
    proxy.tamper(() => "hold");
    const operation = await client.beginPrepare({ reference, pull: "always" });
    const stop = new AbortController();
    const events = client.events({ signal: stop.signal, afterId: 0 });
    await client.cancel(operation.id);
    expect(await failureOf(client.follow(operation.id))).toMatchObject({ code: "CANCELLED" });
    proxy.tamper(() => "none");
    for await (const { type, data } of events) {
      if (type === "operation.cancelled" && data["operation"] === operation.id) break;
    }
    stop.abort();
  });
});

describe("a service that restarts in the middle of a prepare", () => {
  it.each(["SIGTERM", "SIGKILL"])("is waited for, and asked again: after %s", async (how) => {
    const folder = await mkdtemp(join(tmpdir(), "bs-"));
    const place = {
      root: join(folder, "root"),
      socketPath: join(folder, "s"),
      environment: { BOOTSHIM_CONFIG: join(work, "config.toml") },
    };
    const first = await startService(place);
    const patient = new BootshimClient({ socketPath: place.socketPath });
    const wish = { reference, machine: { network: "none" } };
    proxy.pace(2_000_000);
    const seen: OperationProgress[] = [];
    try {
      const followed = patient.putMachine("followed", wish, {
        onProgress: (progress) => seen.push(progress),
      });
      const blocking = patient.putMachine("blocking", wish);
      const { id } = await patient.beginPrepare({ reference, machine: { ...wish.machine, id: "begun" } });
      const forgotten = failureOf(patient.follow(id));
      await vi.waitFor(() => expect(seen.some(({ doneBytes }) => doneBytes > 0)).toBe(true), 20_000);
      if (how === "SIGTERM") expect(await first.stop()).toBe(0);
      else await first.kill();
      await wait(1000);
      proxy.pace(undefined);
      const second = await startService(place);
      try {
        expect((await followed).machine?.id).toBe("followed");
        expect((await blocking).machine?.id).toBe("blocking");
        // There was nothing to repeat: whoever began it has to. Or it was told of the end before that came.
        expect(["OPERATION_NOT_FOUND", "CANCELLED"]).toContain((await forgotten).code);
        const machines = (await patient.machines()).map((machine) => machine.id).sort();
        expect(machines.filter((each) => each !== "begun")).toEqual(["blocking", "followed"]);
      } finally {
        expect(await second.stop()).toBe(0);
      }
    } finally {
      proxy.pace(undefined);
      await rm(folder, { recursive: true, force: true });
    }
  }, 60_000);
});

describe("commands with --socket", () => {
  const nowhere = () => ({ root: join(work, "not-used") });
  const there = () => ({ ...nowhere(), environment: { BOOTSHIM_SOCKET: service.socketPath } });

  it("say what they say without, of the service's root", async () => {
    const id = `cli-${randomWord()}`;
    const prepare = ["prepare", reference, "--machine", id, "--network", "none", "--memory", "512MiB"];
    const prepared = await bootshimJson([...prepare, "--socket", service.socketPath], nowhere());
    expect(prepared).toMatchObject({ machine: { id } });
    expect(await bootshimJson(prepare, { root: join(work, "root") })).toMatchObject({
      cached: true,
      machine: { id },
    });
    for (const argv of [["machines"], ["machine", "show", id], ["xml", id], ["qemu", id], ["images"]]) {
      const [asked, own] = await Promise.all([
        bootshim(argv, there()),
        bootshim([...argv, "--connect", "test:///default"], { root: join(work, "root") }),
      ]);
      expect([argv, asked.exitCode, asked.stdout]).toEqual([argv, 0, own.stdout]);
    }
    for (const verb of ["define", "start", "destroy", "undefine"]) {
      expect(await bootshimJson([verb, id], there())).toMatchObject({ id });
    }
    expect(await bootshimJson(["pin", reference], there())).toMatchObject({ reference, pinned: true });
    expect((await bootshim(["rm", reference], there())).exitCode).toBe(73);
    expect(await bootshimJson(["unpin", reference], there())).toMatchObject({ reference, pinned: false });
    expect(await bootshimJson(["release", id], there())).toEqual({ id });
    expect(await bootshimJson(["gc", "--dry-run"], there())).toMatchObject({ dryRun: true });
    expect(await bootshimJson(["rm", reference], there())).toMatchObject({ references: [reference] });
  });

  it("end with the service's error, or say that nobody answers", async () => {
    const none = await bootshim(["machine", "show", "none", "-o", "json"], there());
    expect([none.exitCode, JSON.parse(none.stderr)]).toMatchObject([66, {
      error: { code: "MACHINE_NOT_FOUND" },
    }]);
    const nobody = await bootshim(["machines", "--socket", join(work, "nobody")], nowhere());
    expect([nobody.exitCode, nobody.stderr]).toEqual([
      74,
      expect.stringContaining("start it: bootshim serve"),
    ]);
    // Also where the client itself would wait for it.
    const startedMs = performance.now();
    const prepared = await bootshim(["prepare", reference, "--socket", join(work, "nobody")], nowhere());
    expect([prepared.exitCode, prepared.stderr]).toEqual([74, nobody.stderr]);
    expect(performance.now() - startedMs).toBeLessThan(15_000);
  });
});
