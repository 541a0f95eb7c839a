/** libvirt's C functions failing, hanging and answering nonsense in turn, through the real bindings and the real thread. */
import { randomUUID } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";

import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { LibvirtCalls } from "../../src/libvirt/libvirt_calls.ts";
import { LibvirtSession, type SessionNotice } from "../../src/libvirt/libvirt_session.ts";
import { loadLibvirt } from "../../src/libvirt/load_libvirt.ts";
import { failureOf, refusalOf } from "../support/failures.ts";
import { buildLibvirtStub, loadLibvirtStub } from "../support/libvirt_stub.ts";
import { randomWord } from "../support/random_word.ts";

const WORKER = new URL("../support/stub_worker.ts", import.meta.url);
const stub = loadLibvirtStub();
const bindings = loadLibvirt(stub.library);
const uuid = randomUUID();
const name = `vm-${randomWord()}`;
const xml = `<domain><name>${name}</name><uuid>${uuid}</uuid></domain>`;

beforeEach(() => stub.reset());

function connect(options: { callTimeoutMs?: number; signal?: AbortSignal } = {}): Promise<LibvirtConnection> {
  return LibvirtConnection.open("stub:///", { workerEntry: WORKER, ...options });
}

/** What is left when all is given back. */
const EVEN = { connections: 0, domains: 0, strings: 0, bad: 0, callbacks: 0 };

function account() {
  return Object.fromEntries(
    (["connections", "domains", "strings", "bad", "callbacks"] as const).map((
      what,
    ) => [what, stub.count(what)]),
  );
}

/** Bounded wait for something that no event tells. */
async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error("It did not happen within 30 s");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const OPERATIONS: Readonly<Record<string, (calls: LibvirtCalls) => unknown>> = {
  version: (calls) => calls.version(),
  capabilitiesXml: (calls) => calls.capabilitiesXml(),
  domainCapabilitiesXml: (calls) => calls.domainCapabilitiesXml("x86_64", "qemu"),
  defineDomain: (calls) => calls.defineDomain(xml),
  findDomain: (calls) => calls.findDomain(name),
  listDomains: (calls) => calls.listDomains(),
  domainXml: (calls) => calls.domainXml(name),
  startDomain: (calls) => calls.startDomain(name),
  shutdownDomain: (calls) => calls.shutdownDomain(name),
  destroyDomain: (calls) => calls.destroyDomain(name),
  undefineDomain: (calls) => calls.undefineDomain(name),
};

/** Each C function that can fail, and an operation that makes it. */
const FALLIBLE: readonly [string, keyof typeof OPERATIONS][] = [
  ["virGetVersion", "version"],
  ["virConnectGetVersion", "version"],
  ["virConnectGetCapabilities", "capabilitiesXml"],
  ["virConnectGetDomainCapabilities", "domainCapabilitiesXml"],
  ["virConnectListAllDomains", "listDomains"],
  ["virDomainDefineXMLFlags", "defineDomain"],
  ["virDomainLookupByName", "findDomain"],
  ["virDomainCreate", "startDomain"],
  ["virDomainShutdown", "shutdownDomain"],
  ["virDomainDestroy", "destroyDomain"],
  ["virDomainUndefineFlags", "undefineDomain"],
  ["virDomainGetXMLDesc", "domainXml"],
  ["virDomainGetName", "listDomains"],
  ["virDomainGetUUIDString", "defineDomain"],
  ["virDomainGetState", "findDomain"],
  ["virDomainIsPersistent", "listDomains"],
];

describe("every C call", () => {
  it.each(FALLIBLE)(
    "LV07 LV08 %s failing, with an error and without: %s tells, and gives all back",
    (symbol, operation) => {
      const calls = LibvirtCalls.open(bindings, "stub:///");
      calls.defineDomain(xml);
      const run = OPERATIONS[operation];
      if (run === undefined) throw new Error(`no operation ${operation}`);
      stub.arm(symbol, "fail", 1);
      const told = refusalOf(() => run(calls));
      expect([told.code, told.details["libvirtCode"]]).toEqual(["DOMAIN_FAILED", 9]);
      expect(told.message).toContain(`libvirt reports "${symbol} failed as it was told"`);
      stub.arm(symbol, "silent", 1);
      expect(refusalOf(() => run(calls)).message).toContain("libvirt failed and gave no reason");
      // And works again
      run(calls);
      calls.close();
      expect(account()).toEqual(EVEN);
    },
  );

  it.each([
    "virConnectOpen",
    "virConnectSetKeepAlive",
    "virConnectRegisterCloseCallback",
    "virConnectDomainEventRegisterAny",
  ])(
    "LV06 %s failing: a session goes on trying, says why meanwhile, and gives all back",
    async (symbol) => {
      stub.arm(symbol, "fail");
      const session = LibvirtSession.start("stub:///", { workerEntry: WORKER });
      try {
        let told = "";
        while (!told.includes(`${symbol} failed as it was told`)) {
          const error = await failureOf(session.listDomains());
          expect(error.code).toBe("HYPERVISOR_UNAVAILABLE");
          told = error.message;
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        stub.arm(symbol, "fail", 0);
        await session.whenConnected(30_000);
        expect(await session.listDomains()).toEqual([]);
      } finally {
        await session.close();
      }
      expect(account()).toEqual(EVEN);
    },
  );

  it("LV07 100,000 definitions found, read and listed: the account is even", () => {
    const calls = LibvirtCalls.open(bindings, "stub:///");
    calls.defineDomain(xml);
    for (let round = 0; round < 25_000; round++) {
      calls.findDomain(name);
      calls.domainXml(name);
      calls.listDomains();
      calls.defineDomain(xml);
    }
    calls.close();
    expect(account()).toEqual(EVEN);
  });
});

describe("strings of libvirt", () => {
  it("LV08 10 MB arrive whole from the thread, and a name of 10 MB in a list", async () => {
    const connection = await connect();
    stub.arm("virConnectGetCapabilities", "big", 1);
    expect((await connection.capabilitiesXml()).length).toBe(10 << 20);
    await connection.defineDomain(xml);
    stub.arm("virDomainGetName", "big", 1);
    expect((await connection.listDomains())[0]?.name).toHaveLength(10 << 20);
    await connection.close();
    expect(account()).toEqual(EVEN);
  });

  it("LV08 bytes that are no UTF-8 become replacement characters", async () => {
    const connection = await connect();
    await connection.defineDomain(xml);
    for (const symbol of ["virDomainGetXMLDesc", "virDomainGetName"]) stub.arm(symbol, "latin", 1);
    expect(await connection.domainXml(name)).toBe("caf\ufffd \ufffd\ufffd <x/>");
    expect((await connection.findDomain(name))?.name).toBe("caf\ufffd");
    await connection.close();
  });

  it("LV08 an error's text of megabytes is cut", async () => {
    const connection = await connect();
    const error = await failureOf(connection.defineDomain("x".repeat(3 << 20)));
    expect(error.code).toBe("DOMAIN_INVALID");
    expect(error.message.length).toBeLessThan(5_000);
    await connection.close();
  });
});

describe("threads", () => {
  it("LV05 64 parallel failing calls each get their own error, all made on one thread", async () => {
    const connection = await connect();
    const names = Array.from({ length: 64 }, () => randomWord());
    const failures = await Promise.all(
      names.map((each, index) =>
        failureOf(index % 2 === 0 ? connection.startDomain(each) : connection.defineDomain(each))
      ),
    );
    for (const [index, failure] of failures.entries()) {
      expect(failure.code).toBe(index % 2 === 0 ? "MACHINE_NOT_FOUND" : "DOMAIN_INVALID");
      expect(failure.message).toContain(names[index]);
    }
    expect(stub.count("foreign")).toBe(0);
    await connection.close();
    expect(account()).toEqual(EVEN);
  });

  it("LV04 a call that hangs is given up and its thread freed; it happened at most once", async () => {
    const connection = await connect({ callTimeoutMs: 500 });
    await connection.defineDomain(xml);
    stub.arm("virDomainCreate", "hang", 1);
    const error = await failureOf(connection.startDomain(name));
    expect([error.code, error.details["wasSent"]]).toEqual(["HYPERVISOR_TIMEOUT", true]);
    await connection.close();
    expect([account(), stub.count("starts")]).toEqual([EVEN, 0]);
  });

  it.each([0, 200])(
    "a signal, %i ms later, ends a call that hangs, and refuses the next",
    async (pauseMs) => {
      const abort = new AbortController();
      const connection = await connect({ signal: abort.signal });
      stub.arm("virConnectListAllDomains", "hang", 1);
      const listing = failureOf(connection.listDomains());
      const waiting = failureOf(connection.findDomain(name));
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      abort.abort();
      const [listed, waited] = await Promise.all([listing, waiting]);
      expect([listed.code, listed.details["wasSent"]]).toEqual(["CANCELLED", true]);
      expect([waited.code, waited.details["wasSent"]]).toEqual(["CANCELLED", false]);
      expect((await failureOf(connection.listDomains())).code).toBe("CANCELLED");
      await connection.close();
      expect((await failureOf(connect({ signal: abort.signal }))).code).toBe("CANCELLED");
      expect(account()).toEqual(EVEN);
    },
  );
});

describe("LibvirtSession", () => {
  async function start(callTimeoutMs = 30_000) {
    const notices: SessionNotice[] = [];
    const session = LibvirtSession.start("stub:///", {
      workerEntry: WORKER,
      callTimeoutMs,
      onNotice: (notice) => notices.push(notice),
    });
    await session.whenConnected(30_000);
    return { session, notices };
  }

  it("tells of events in order, with numbers that no libvirt has had yet", async () => {
    const { session, notices } = await start();
    await session.defineDomain(xml);
    for (const [event, detail] of [[2, 0], [5, 3], [42, 17]] as const) stub.emit(event, detail);
    await until(() => notices.length === 4);
    stub.arm("virDomainGetState", "strange", 1);
    expect((await session.findDomain(name))?.state).toBe("unknown (4711)");
    await session.close();
    expect(notices).toEqual([
      { kind: "connected", domains: [] },
      { kind: "event", event: { name, uuid, event: "started", detail: 0 } },
      { kind: "event", event: { name, uuid, event: "stopped", detail: 3 } },
      { kind: "event", event: { name, uuid, event: "unknown (42)", detail: 17 } },
      { kind: "disconnected", reason: "the session was closed" },
    ]);
    expect([account(), stub.count("foreign")]).toEqual([EVEN, 0]);
  });

  it.each(["virDomainGetName", "virDomainGetUUIDString"])(
    "LV06 an event whose %s fails throws into nobody's stack: all is read anew",
    async (symbol) => {
      const { session, notices } = await start();
      await session.defineDomain(xml);
      stub.arm(symbol, "fail", 1);
      stub.emit(2, 0);
      await until(() => notices.length === 3);
      expect(notices.slice(1)).toMatchObject([
        { kind: "disconnected", reason: "an event could not be read" },
        { kind: "connected", domains: [{ name, uuid }] },
      ]);
      await session.close();
      expect(account()).toEqual(EVEN);
    },
  );

  it("LV03 the close callback: disconnected, connected again, state read anew; one session per process", async () => {
    const { session, notices } = await start();
    expect(refusalOf(() => LibvirtSession.start("stub:///")).code).toBe("INTERNAL");
    await session.defineDomain(xml);
    for (let round = 0; round < 20; round++) {
      const before = notices.length;
      stub.close(1);
      await until(() => notices.length === before + 2);
    }
    expect(notices.slice(-2)).toMatchObject([
      { kind: "disconnected", reason: "the daemon ended the connection" },
      { kind: "connected", domains: [{ name, state: "shut off" }] },
    ]);
    await session.close();
    expect([account(), stub.count("foreign")]).toEqual([EVEN, 0]);
  });

  it("LV12 a lost answer is told as such, made once, and the session comes back to read the truth", async () => {
    const { session, notices } = await start();
    await session.defineDomain(xml);
    stub.arm("virDomainCreate", "lost", 1);
    expect((await failureOf(session.startDomain(name))).code).toBe("HYPERVISOR_UNAVAILABLE");
    await until(() => notices.length === 3);
    expect(notices[2]).toMatchObject({ kind: "connected", domains: [{ name, state: "running" }] });
    expect(stub.count("starts")).toBe(1);
    await session.close();
    expect(account()).toEqual(EVEN);
  });

  it("LV02 LV04 a hung call times out, later ones are refused at once, and the same thread serves again", async () => {
    const { session, notices } = await start(500);
    stub.arm("virConnectListAllDomains", "hang", 1);
    expect((await failureOf(session.listDomains())).code).toBe("HYPERVISOR_TIMEOUT");
    expect((await failureOf(session.listDomains())).code).toBe("HYPERVISOR_UNAVAILABLE");
    await until(() => notices.length === 3);
    expect(await session.listDomains()).toEqual([]);
    await session.close();
    expect([account(), stub.count("foreign")]).toEqual([EVEN, 0]);
  });
});

describe("a library that lacks something", () => {
  it.each([
    ...new Set(FALLIBLE.map(([symbol]) => symbol)),
    "virEventRegisterDefaultImpl",
    "virConnectOpen",
    "virGetLastErrorCode",
    "virDomainFree",
  ])(
    "LV01 %s: told when the library is loaded, not when it is needed",
    (symbol) => {
      const error = refusalOf(() => loadLibvirt(buildLibvirtStub(symbol)));
      expect([error.code, error.details["symbol"]]).toEqual(["HYPERVISOR_LIBRARY_MISSING", symbol]);
    },
  );
});
