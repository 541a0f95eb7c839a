/** One caller's trouble is no other's: hung registries, crowds of callers that wait, and what is dear to answer. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiKit, startApiKit, until } from "../support/api_kit.ts";
import { callRaw, type RawCaller } from "../support/raw_http.ts";
import type { ServiceProcess } from "../support/service.ts";

let kit: ApiKit;

beforeAll(async () => {
  kit = await startApiKit();
});

afterAll(() => kit.stop());

function begin(service: ServiceProcess, body: unknown) {
  return service.ask("/v1/prepare", { body, headers: { prefer: "respond-async" } });
}

async function timed<T>(body: () => Promise<T>): Promise<{ answer: T; elapsedMs: number }> {
  const startMs = performance.now();
  const answer = await body();
  return { answer, elapsedMs: performance.now() - startMs };
}

describe("AP17 a registry that hangs", () => {
  it("keeps neither a cached image of its own nor another registry's waiting", async () => {
    const { proxy, otherProxy, reference } = kit;
    const service = await kit.start("hung", "max_running = 8");
    try {
      expect((await service.ask("/v1/prepare", { body: { reference } })).status).toBe(200);
      proxy.tamper(() => "hold");
      const hung = [
        ...Array.from({ length: 20 }, (_, index) => ({ reference: `${proxy.host}/other/${index}:1` })),
        // Known by name, but what the tag stands for now has to be asked for.
        ...Array.from({ length: 20 }, (_, index) => ({
          reference,
          pull: "always",
          machine: { id: `hung-${index}`, network: "none" },
        })),
        // Known, but not whole: the name is in the cache, the layer of the other platform is not.
        ...Array.from({ length: 20 }, (_, index) => ({
          reference,
          architecture: "arm64",
          pull: "always",
          machine: { id: "same", cpus: index + 1, network: "none" },
        })),
      ];
      for (const wish of hung) expect((await begin(service, wish)).status).toBe(202);
      await until(() => proxy.requests.length > 3);
      for (let index = 0; index < 5; index++) {
        const wish = { reference, machine: { id: `warm-${index}`, network: "none" } };
        const { answer, elapsedMs } = await timed(() => service.ask("/v1/prepare", { body: wish }));
        expect([answer.status, answer.json]).toMatchObject([200, { cached: true }]);
        expect(elapsedMs).toBeLessThan(5000);
      }
      const elsewhere = { reference: `${otherProxy.host}/os/demo:1` };
      const { answer, elapsedMs } = await timed(() => service.ask("/v1/prepare", { body: elsewhere }));
      expect(answer.status).toBe(200);
      expect(elapsedMs).toBeLessThan(10_000);
      const text = (await service.ask("/metrics")).text;
      // A quarter of the places is all that one registry has.
      expect(text).toMatch(/^bootshim_operations\{state="running"\} 2$/m);
    } finally {
      proxy.tamper(() => "none");
      expect(await service.stop()).toBe(0);
    }
  });
});

describe("AP11 callers that wait", () => {
  it.each(["blocking prepares", "readers of events"])(
    "as %s, more than there are connections, leave health to others and are told 503 with Retry-After",
    async (what) => {
      const { proxy } = kit;
      const service = await kit.start(`crowd-${what.length}`, "max_connections = 40");
      try {
        proxy.tamper(() => "hold");
        const callers: RawCaller[] = [];
        for (let index = 0; index < 60; index++) {
          const body = JSON.stringify({ reference: `${proxy.host}/other/${index}:1` });
          const request = what === "readers of events"
            ? "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
            : `POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
          const caller = await callRaw(service.socketPath, request);
          callers.push(caller);
          if (index >= 30) await until(() => caller.received() !== "");
        }
        const refused = () => callers.filter(({ received }) => received().startsWith("HTTP/1.1 503 "));
        expect(refused()).toHaveLength(30);
        for (const { received } of refused()) {
          expect(received()).toMatch(/^retry-after: [1-9]/im);
          expect(received()).toContain('"code":"BUSY"');
        }
        for (let index = 0; index < 20; index++) {
          const { answer, elapsedMs } = await timed(() => service.ask("/healthz"));
          expect(answer.status).toBe(200);
          expect(elapsedMs).toBeLessThan(1000);
        }
        // Who has gone holds no place any more, also when what it asked for goes on.
        for (const { socket } of callers) socket.destroy();
        const next = await callRaw(service.socketPath, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
        await until(() => next.received() !== "");
        expect(next.received()).toMatch(/^HTTP\/1\.1 200 /);
        next.socket.destroy();
      } finally {
        proxy.tamper(() => "none");
        expect(await service.stop()).toBe(0);
      }
    },
  );

  it.each([
    ["do not send what they announced", "POST /v1/gc HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"],
    ["do not take their answer", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)],
  ])("AP05 and %s are closed when others come", async (_what, bytes) => {
    const service = await kit.start(`unread-${bytes.length}`, "max_connections = 20");
    try {
      const callers: RawCaller[] = [];
      for (let index = 0; index < 30; index++) {
        const caller = await callRaw(service.socketPath);
        caller.socket.pause();
        caller.socket.write(bytes);
        callers.push(caller);
      }
      const isWell = () => service.ask("/healthz").then(({ status }) => status === 200, () => false);
      await until(isWell);
      for (let index = 0; index < 20; index++) {
        expect((await service.ask("/healthz")).status).toBe(200);
      }
      for (const { socket } of callers) socket.destroy();
    } finally {
      expect(await service.stop()).toBe(0);
    }
  });
});

it("examines the host once for all who ask together, and answers health meanwhile", async () => {
  const service = await kit.start("host");
  try {
    const first = await timed(() => service.ask("/v1/host"));
    const all = Promise.all(Array.from({ length: 100 }, () => service.ask("/v1/host")));
    const health = await timed(() => service.ask("/healthz"));
    expect(health.answer.status).toBe(200);
    const answers = await all;
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set([first.answer.text]));
    expect(health.elapsedMs).toBeLessThan(1000);
  } finally {
    expect(await service.stop()).toBe(0);
  }
});
