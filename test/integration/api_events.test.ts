/** What the service tells: to readers that come back, of progress, of what was made and removed, and whose it was. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type ApiKit, startApiKit, until } from "../support/api_kit.ts";
import { randomWord } from "../support/random_word.ts";
import { callRaw } from "../support/raw_http.ts";
import type { ServiceProcess } from "../support/service.ts";

let kit: ApiKit;

beforeAll(async () => {
  kit = await startApiKit();
});

afterAll(() => kit.stop());

type Told = { readonly id: string; readonly type: string; readonly data: Readonly<Record<string, unknown>> };

/** What a reader is given at once. */
async function eventsAfter({ socketPath }: ServiceProcess, id: string, last: RegExp): Promise<Told[]> {
  const reader = await callRaw(
    socketPath,
    `GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: ${id}\r\n\r\n`,
  );
  await until(() => last.test(reader.received()));
  reader.socket.destroy();
  return [...reader.received().matchAll(/^id: (\d+)\nevent: (.*)\ndata: (.*)$/gm)].map((
    [, id = "", type = "", data = ""],
    // Whether a libvirtd runs beside the tests is no matter here.
  ) => ({ id, type, data: JSON.parse(data) })).filter(({ type }) => !type.startsWith("libvirt."));
}

it("AP15 tells a reader that comes back after a restart that it may have lost something", async () => {
  const { reference } = kit;
  const first = await kit.start("restart");
  await first.ask("/v1/prepare", { body: { reference } });
  const before = await eventsAfter(first, "0", /operation\.succeeded/);
  expect(before.map(({ type }) => type)).not.toContain("resync");
  expect(await first.stop()).toBe(0);
  const second = await kit.start("restart");
  try {
    for (let index = 0; index < 5; index++) {
      await second.ask("/v1/prepare", { body: { reference, append: [`x=${index}`] } });
    }
    // A number that this life would have reached by now, had it begun at 1.
    const seen = before[1]?.id ?? "";
    const [resync, next] = await eventsAfter(second, seen, /operation\.succeeded/);
    expect([resync?.type, next?.type]).toEqual(["resync", "operation.running"]);
    expect(Number(next?.id)).toBeGreaterThan(Number(before.at(-1)?.id));
  } finally {
    expect(await second.stop()).toBe(0);
  }
});

it("tells progress a few times a second, to the operation's readers only, and its end always", async () => {
  const { proxy, reference } = kit;
  const service = await kit.start("progress");
  try {
    proxy.pace(8_000_000);
    const startMs = performance.now();
    const { headers, json } = await service.ask("/v1/prepare", {
      body: { reference },
      headers: { prefer: "respond-async" },
    });
    const { text } = await service.ask(`${headers["location"]}/events`);
    const elapsedSeconds = (performance.now() - startMs) / 1000;
    const progress = [...text.matchAll(/^event: operation\.progress\ndata: (.*)$/gm)].map(([, data = ""]) =>
      JSON.parse(data).progress
    );
    expect(elapsedSeconds).toBeGreaterThan(2);
    expect(progress.length).toBeGreaterThan(5);
    // Each phase tells its beginning besides.
    expect(progress.length).toBeLessThan(elapsedSeconds * 5 + 6);
    const pulled = progress.findLast(({ phase }) => phase === "pulling");
    expect(pulled.doneBytes).toBe(pulled.totalBytes);
    expect(json).toMatchObject({ subject: { reference } });
    const kept = await eventsAfter(service, "0", /operation\.succeeded/);
    expect(kept.map(({ type }) => type)).toEqual([
      "operation.running",
      "image.pulling",
      "image.pulled",
      "operation.succeeded",
    ]);
  } finally {
    proxy.pace(undefined);
    expect(await service.stop()).toBe(0);
  }
}, 120_000);

it("tells what was made once, and each image that a collection removed", async () => {
  const { reference } = kit;
  const service = await kit.start("made");
  try {
    const id = `made-${randomWord()}`;
    const put = () =>
      service.ask(`/v1/machines/${id}`, {
        method: "PUT",
        body: { reference, machine: { network: "none", clone: "copy" } },
      });
    for (let times = 0; times < 3; times++) expect((await put()).status).toBe(200);
    expect((await service.ask(`/v1/machines/${id}`, { method: "DELETE" })).status).toBe(200);
    const collected = await service.ask("/v1/gc", { body: { maxBytes: 1, minAgeSeconds: 0 } });
    expect(collected.json).toMatchObject({ images: [{ reference }] });
    const told = await eventsAfter(service, "0", /gc\.finished/);
    const count = (type: string) => told.filter((event) => event.type === type).length;
    expect([count("image.pulling"), count("image.pulled"), count("machine.prepared")]).toEqual([1, 1, 1]);
    const [removed] = told.filter(({ type }) => type === "image.removed");
    expect(removed?.data).toMatchObject({ references: [reference], digest: expect.any(String) });
  } finally {
    expect(await service.stop()).toBe(0);
  }
});

it("says of each operation what it is about, and when it was over", async () => {
  const { reference } = kit;
  const service = await kit.start("subject");
  try {
    const id = `whose-${randomWord()}`;
    await service.ask(`/v1/machines/${id}`, {
      method: "PUT",
      body: { reference, machine: { network: "none" } },
    });
    const [operation] = (await service.ask("/v1/operations")).json as Record<string, string>[];
    expect(operation).toMatchObject({ subject: { reference, machine: id }, state: "succeeded" });
    const { startedAt = "", finishedAt = "" } = operation ?? {};
    expect(Date.parse(finishedAt)).toBeGreaterThanOrEqual(Date.parse(startedAt));
  } finally {
    expect(await service.stop()).toBe(0);
  }
});

it("AP18 forgets readers that have gone, however they went", async () => {
  const service = await kit.start("readers", "max_connections = 100");
  try {
    // More than there are places for readers: whoever was not forgotten would take one.
    for (let index = 0; index < 300; index++) {
      const reader = await callRaw(service.socketPath, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
      await until(() => reader.received() !== "");
      expect(reader.received()).toMatch(/^HTTP\/1\.1 200 /);
      reader.socket.destroy();
      await reader.closed;
      expect((await service.ask("/v1/events", { method: "HEAD" })).status).toBe(405);
    }
  } finally {
    expect(await service.stop()).toBe(0);
  }
}, 120_000);
