/** Event streams: readers that are slow, and readers that come and go by the thousand. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { EventLog, RESYNC } from "../../src/api/event_log.ts";
import { callRaw, type RawCaller } from "../support/raw_http.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

let work: string;
let service: ServiceProcess;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-streams-"));
  service = await startService({ root: join(work, "root") });
});
afterAll(async () => {
  await service?.stop();
  await rm(work, { recursive: true, force: true });
});

async function usage(): Promise<{ descriptors: number; residentMib: number }> {
  const descriptors = (await readdir(`/proc/${service.pid}/fd`)).length;
  const status = await readFile(`/proc/${service.pid}/status`, "utf8");
  return { descriptors, residentMib: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024 };
}

async function until(what: () => boolean | Promise<boolean>, why: string): Promise<void> {
  for (let tries = 0; !await what(); tries++) {
    if (tries > 500) throw new Error(`it did not come to that: ${why}`);
    await wait(20);
  }
}

async function open(path = "/v1/events"): Promise<RawCaller> {
  const caller = await callRaw(service.socketPath, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await until(() => caller.received().includes(": events follow"), "an open stream");
  return caller;
}

/** Two events and more each: of an image that is nowhere, which nobody asks a registry for. */
async function makeEvents(count: number): Promise<void> {
  for (let done = 0; done < count; done += 50) {
    await Promise.all(Array.from({ length: Math.min(50, count - done) }, async (_, index) => {
      const body = { reference: `registry.example.org/none/${done + index}:1`, pull: "never" };
      expect((await service.ask("/v1/prepare", { body })).status).toBe(404);
    }));
  }
}

it("AP15 a reader that takes nothing has no more than a thousand events waiting, and is told of those it lost", async () => {
  const log = new EventLog();
  const stop = new AbortController();
  const reading = log.read({ signal: stop.signal });
  const first = reading.next();
  for (let index = 0; index < 100_000; index++) log.publish("image.pulled", { index });
  const read = [(await first).value];
  for await (const event of reading) {
    read.push(event);
    if (event.data["index"] === 99_999) break;
  }
  stop.abort();
  expect(read.length).toBeLessThanOrEqual(1001);
  expect(read.filter((event) => event?.type === RESYNC).length).toBe(1);
});

it("AP15 a slow reader over the socket is told to look anew, and costs others and the memory nothing", async () => {
  // As many as are kept of operations and events: from then on nothing grows that may.
  await makeEvents(2000);
  const slow = await open();
  slow.socket.pause();
  const quick = await open();
  const before = await usage();
  await makeEvents(2500);
  const after = await usage();
  const countOf = (text: string) => text.match(/^event: operation\.failed$/gm)?.length ?? 0;
  await until(() => countOf(quick.received()) === 2500, "all events at the quick reader");
  expect(quick.received()).not.toContain(`event: ${RESYNC}`);
  slow.socket.resume();
  await until(() => slow.received().includes(`event: ${RESYNC}`), "the slow reader's resync");
  // From then on it is like any other.
  const lost = 2500 - countOf(slow.received());
  await makeEvents(1);
  const lastId = () => [...quick.received().matchAll(/^id: (\d+)\nevent: operation\.failed$/gm)].at(-1)?.[1];
  await until(() => countOf(quick.received()) === 2501, "the last event");
  await until(() => slow.received().includes(`id: ${lastId()}\n`), "the last event at the slow reader");
  expect(lost).toBeGreaterThan(0);
  console.log(`a slow reader lost ${lost} of 2500; memory ${JSON.stringify({ before, after })}`);
  expect(after.residentMib).toBeLessThan(before.residentMib * 1.2 + 40);
  for (const { socket } of [slow, quick]) socket.destroy();
});

it("AP18 streams that are opened and left, read or not, leave nothing behind", async () => {
  const count = process.env["BOOTSHIM_FUZZ_RUNS"] === undefined ? 500 : 20_000;
  /** Leaves at once, after a while, or without having read a byte of what came; and asks for the head of a stream alone. */
  const comeAndGo = async (amount: number) => {
    for (let done = 0; done < amount; done += 10) {
      const [parked, ...others] = await Promise.all(Array.from({ length: 9 }, () => open()));
      parked?.socket.pause();
      if (done % 100 === 0) await makeEvents(10);
      for (const { socket } of [parked, ...others].filter((each) => each !== undefined)) socket.destroy();
      const head = await callRaw(
        service.socketPath,
        "HEAD /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
      );
      await Promise.race([head.closed, wait(500)]);
      expect(head.received()).toMatch(/^HTTP\/1\.1 (?:200|405) /);
      head.socket.destroy();
    }
  };
  // As many operations as are kept, and more: from then on nothing grows that may.
  await makeEvents(2500);
  await comeAndGo(Math.max(200, count / 10));
  await wait(200);
  const before = await usage();
  await comeAndGo(count);
  await until(async () => (await usage()).descriptors <= before.descriptors + 2, "descriptors as before");
  const after = await usage();
  console.log(`after ${count} streams: ${JSON.stringify({ before, after })}`);
  expect(after.residentMib).toBeLessThan(before.residentMib * 1.2 + 20);
}, 3_600_000);
