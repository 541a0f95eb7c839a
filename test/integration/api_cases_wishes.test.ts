/** Wishes for machines that the service has to take as the command line does: UUIDs of every kind, files of every size. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { randomWord } from "../support/random_word.ts";
import { type ServiceProcess, startService } from "../support/service.ts";

const REFERENCE = "registry.example.org/os/wishes:1";
const MIB = 2 ** 20;

let work: string;
let root: string;
let service: ServiceProcess;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-wishes-"));
  root = join(work, "root");
  const parts = `arch=amd64,kernel=${await makeGuestPart("kernel")}`;
  await bootshimJson(["build", "--tag", REFERENCE, "--config", parts], { root });
  service = await startService({ root, argv: ["--connect", "test:///default"] });
});
afterAll(async () => {
  await service?.stop();
  await rm(work, { recursive: true, force: true });
});

function put(id: string, machine: object) {
  return service.ask(`/v1/machines/${id}`, {
    method: "PUT",
    body: { reference: REFERENCE, machine: { network: "none", ...machine } },
  });
}

/** The files that cloud-init finds, as the seed's disk holds them: whole, one after the other. */
async function seedOf(answer: { readonly json: unknown }): Promise<Uint8Array> {
  const disk = prepareDocument.parse(answer.json).machine?.disks.find(({ role }) => role === "seed");
  return await readFile(String(disk?.path));
}

describe("a UUID of any version", () => {
  it.each([
    "12345678-1234-0000-0000-123456789abd",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFF0",
    "00000000-0000-0000-0000-000000000001",
  ])("%s makes a machine that can be read, put again, defined and released", async (uuid) => {
    const id = `uuid-${randomWord()}`;
    const path = `/v1/machines/${id}`;
    const made = await put(id, { uuid });
    expect([made.status, made.json]).toMatchObject([200, { machine: { uuid: uuid.toLowerCase() } }]);
    expect((await put(id, { uuid })).status).toBe(200);
    expect(await service.ask(path)).toMatchObject({ status: 200, json: { uuid: uuid.toLowerCase() } });
    expect((await service.ask(`${path}/domain.xml`)).text).toContain(`<uuid>${uuid.toLowerCase()}</uuid>`);
    expect((await service.ask(`${path}/define`, { method: "POST" })).status).toBe(200);
    expect((await service.ask(path, { method: "DELETE" })).status).toBe(200);
  });

  it("is the command line's, too", async () => {
    const id = `cli-${randomWord()}`;
    const uuid = "12345678-1234-0000-0000-123456789abe";
    const argv = ["prepare", REFERENCE, "--machine", id, "--network", "none", "--uuid", uuid];
    expect(await bootshimJson(argv, { root })).toMatchObject({ machine: { id, uuid } });
    expect(await service.ask(`/v1/machines/${id}`)).toMatchObject({ status: 200, json: { uuid } });
  });
});

describe("provisioning files", () => {
  it("are taken as bytes in Base64; the same as text is the same wish", async () => {
    const id = `bytes-${randomWord()}`;
    const bytes = gzipSync(`#cloud-config\nhostname: ${id}\n`);
    const made = await put(id, { userDataBase64: bytes.toString("base64") });
    expect(made.status).toBe(200);
    expect(Buffer.from(await seedOf(made)).includes(bytes)).toBe(true);
    const same = `same-${randomWord()}`;
    expect((await put(same, { userData: "#cloud-config\n" })).status).toBe(200);
    const again = { userDataBase64: Buffer.from("#cloud-config\n").toString("base64") };
    expect((await put(same, again)).status).toBe(200);
  });

  it("have the size that the command line takes, over the service as without", async () => {
    const text = join(work, "user-data");
    await writeFile(text, `#cloud-config\n# ${"\n".repeat(2_000_000)}${randomWord()}\n`);
    const binary = join(work, "user-data.gz");
    const bytes = randomBytes(8 * MIB);
    await writeFile(binary, bytes);
    for (const file of [text, binary]) {
      const id = `size-${randomWord()}`;
      const argv = ["prepare", REFERENCE, "--machine", id, "--network", "none", "--user-data", file];
      const json = await bootshimJson([...argv, "--socket", service.socketPath], { root });
      expect(Buffer.from(await seedOf({ json })).includes(await readFile(file))).toBe(true);
      // Without the service: the same wish.
      expect(await bootshimJson(argv, { root })).toMatchObject({ machine: { id } });
    }
    const full = bytes.toString("base64");
    const ignitionBase64 = Buffer.from(JSON.stringify({ x: "a".repeat(8 * MIB - 8) })).toString("base64");
    const all = { ignitionBase64, userDataBase64: full, metadataBase64: full };
    expect((await put(`all-${randomWord()}`, all)).status).toBe(200);
  });

  it.each([
    ["text and bytes", { userData: "a", userDataBase64: "YQ==" }, 400, "REQUEST_INVALID"],
    ["no padding", { userDataBase64: "YQ" }, 400, "REQUEST_INVALID"],
    ["other characters", { metadataBase64: "Y Q==" }, 400, "REQUEST_INVALID"],
    ["bits that mean nothing", { metadataBase64: "YR==" }, 400, "REQUEST_INVALID"],
    ["Ignition that is no JSON", { ignitionBase64: "/w==" }, 400, "REQUEST_INVALID"],
    ["over 8 MiB", { userData: "a".repeat(8 * MIB + 1) }, 422, "LIMIT_EXCEEDED"],
    [
      "over 8 MiB of bytes",
      { userDataBase64: Buffer.alloc(8 * MIB + 1).toString("base64") },
      422,
      "LIMIT_EXCEEDED",
    ],
  ])("AP06 are refused with %s", async (_what, machine, status, code) => {
    expect(await put(`bad-${randomWord()}`, machine)).toMatchObject({ status, json: { code } });
  });

  it("AP11 that many callers wait with take no more memory than there is", async () => {
    // A registry that says nothing.
    const silent = createServer().listen(0, "127.0.0.1");
    await once(silent, "listening");
    const address = silent.address();
    const host = `127.0.0.1:${typeof address === "object" ? address?.port : undefined}`;
    const config = join(work, "silent.toml");
    await writeFile(config, `[registry]\ninsecure = ["${host}"]\n`);
    const other = await startService({
      root: join(work, "silent"),
      environment: { BOOTSHIM_CONFIG: config },
    });
    const userDataBase64 = randomBytes(8 * MIB).toString("base64");
    const begin = (id: string) =>
      other.ask(`/v1/machines/${id}`, {
        method: "PUT",
        body: { reference: `${host}/os/x:1`, machine: { userDataBase64 } },
        headers: { prefer: "respond-async" },
      });
    try {
      const answers = await Promise.all(Array.from({ length: 24 }, (_, index) => begin(`crowd-${index}`)));
      const taken = answers.filter(({ status }) => status === 202);
      const refused = answers.filter(({ status }) => status === 503);
      expect([taken.length, refused.length]).toEqual([16, 8]);
      for (const { json, headers } of refused) {
        expect(json).toMatchObject({ code: "BUSY", retryable: true });
        expect(Number(headers["retry-after"])).toBeGreaterThan(0);
      }
      // What has ended is held no longer.
      const path = String(taken[0]?.headers["location"]);
      await other.ask(path, { method: "DELETE" });
      await vi.waitFor(
        async () => expect((await other.ask(path)).json).toMatchObject({ state: "cancelled" }),
        10_000,
      );
      expect((await begin("crowd-again")).status).toBe(202);
    } finally {
      expect(await other.stop()).toBe(0);
      silent.close();
    }
  }, 60_000);

  it("AP05 make no body longer than three of them, and none of another route's longer than 1 MiB", async () => {
    expect(await put("long", { userData: "a".repeat(35 * MIB) })).toMatchObject({
      status: 413,
      json: { code: "LIMIT_EXCEEDED" },
    });
    expect(await service.ask("/v1/gc", { body: { x: "a".repeat(MIB) } })).toMatchObject({
      status: 413,
      json: { code: "LIMIT_EXCEEDED" },
    });
    expect((await service.ask("/healthz")).status).toBe(200);
  });
});
