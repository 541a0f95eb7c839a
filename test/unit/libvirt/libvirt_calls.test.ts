import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";

import type { LibvirtBindings } from "../../../src/libvirt/bindings.ts";
import { LibvirtCalls } from "../../../src/libvirt/libvirt_calls.ts";
import { refusalOf } from "../../support/failures.ts";
import { stubBindings, type StubWorld } from "./stub_bindings.ts";

const NAME = `vm-${randomUUID()}`;
const RUNNING = { name: NAME, uuid: randomUUID(), state: 1, id: 3, isPersistent: true };
const OFF = { name: `${NAME}-2`, uuid: randomUUID(), state: 5, id: 0xffff_ffff, isPersistent: false };
/** VIR_ERR_OPERATION_FAILED from VIR_FROM_QEMU. */
const FAILURE = { code: 9, domain: 10, message: `libvirt's own words ${randomUUID()}` };

function world(change: Partial<StubWorld> = {}): StubWorld {
  return {
    failing: null,
    failure: FAILURE,
    domains: [RUNNING, OFF],
    calls: [],
    live: new Set(),
    badFrees: [],
    ...change,
  };
}

const OPERATIONS = {
  version: (session) => session.version(),
  capabilitiesXml: (session) => session.capabilitiesXml(),
  defineDomain: (session) => session.defineDomain("<domain/>"),
  findDomain: (session) => session.findDomain(NAME),
  listDomains: (session) => session.listDomains(),
  startDomain: (session) => session.startDomain(NAME),
  shutdownDomain: (session) => session.shutdownDomain(NAME),
  destroyDomain: (session) => session.destroyDomain(NAME),
  undefineDomain: (session) => session.undefineDomain(NAME),
  domainXml: (session) => session.domainXml(NAME),
  keptDomainXml: (session) => session.keptDomainXml(NAME),
  domainCapabilitiesXml: (session) => session.domainCapabilitiesXml("x86_64", "qemu"),
} as const satisfies Record<string, (session: LibvirtCalls) => unknown>;

/** Every C call whose failure must be seen, by the operation that makes it. */
const FALLIBLE: readonly [keyof typeof OPERATIONS, keyof LibvirtBindings, string][] = [
  ["version", "getVersion", "Cannot read libvirt's version"],
  ["version", "connectGetVersion", "Cannot read libvirt's version"],
  ["capabilitiesXml", "connectGetCapabilities", "Cannot read the hypervisor's capabilities"],
  ["defineDomain", "domainDefineXmlFlags", "Cannot define domain"],
  ["defineDomain", "domainGetState", "Cannot read state of domain"],
  ["findDomain", "domainLookupByName", `Cannot find domain "${NAME}"`],
  ["findDomain", "domainGetName", "Cannot read state of domain"],
  ["findDomain", "domainGetUuidString", "Cannot read state of domain"],
  ["findDomain", "domainGetState", "Cannot read state of domain"],
  ["findDomain", "domainIsPersistent", "Cannot read state of domain"],
  ["listDomains", "connectListAllDomains", "Cannot list domains"],
  ["listDomains", "domainGetName", "Cannot read state of domain"],
  ["listDomains", "domainIsPersistent", "Cannot read state of domain"],
  ["startDomain", "domainLookupByName", `Cannot start domain "${NAME}"`],
  ["startDomain", "domainCreate", `Cannot start domain "${NAME}"`],
  ["shutdownDomain", "domainShutdown", `Cannot shut down domain "${NAME}"`],
  ["destroyDomain", "domainDestroy", `Cannot destroy domain "${NAME}"`],
  ["undefineDomain", "domainUndefineFlags", `Cannot undefine domain "${NAME}"`],
  ["domainXml", "domainGetXmlDesc", `Cannot read XML of domain "${NAME}"`],
  ["keptDomainXml", "domainGetXmlDesc", `Cannot read XML of domain "${NAME}"`],
  [
    "domainCapabilitiesXml",
    "connectGetDomainCapabilities",
    "Cannot read what domains the hypervisor can run",
  ],
];

describe("LibvirtCalls", () => {
  it.each(FALLIBLE)(
    "%s gives libvirt's error when %s fails, and frees every pointer once",
    (name, call, action) => {
      const stub = world();
      const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
      stub.failing = call;
      const error = refusalOf(() => OPERATIONS[name](session));
      expect({ code: error.code, message: error.message, details: error.details }).toEqual({
        code: "DOMAIN_FAILED",
        message: `${action}: libvirt reports "${FAILURE.message}"`,
        details: { libvirtCode: 9, libvirtDomain: 10 },
      });
      session.close();
      expect({ live: [...stub.live], badFrees: stub.badFrees }).toEqual({ live: [], badFrees: [] });
    },
  );

  it.each(Object.entries(OPERATIONS))("%s frees every pointer once when all goes well", (_, operation) => {
    const stub = world();
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    operation(session);
    session.close();
    expect({ live: [...stub.live], badFrees: stub.badFrees }).toEqual({ live: [], badFrees: [] });
  });

  it("reads whole statuses: id and null, persistent or not", () => {
    const session = LibvirtCalls.open(stubBindings(world()), "test:///default");
    expect(session.listDomains()).toEqual([
      { name: NAME, uuid: RUNNING.uuid, state: "running", shutOffReason: null, id: 3, isPersistent: true },
      {
        name: OFF.name,
        uuid: OFF.uuid,
        state: "shut off",
        shutOffReason: "shutdown",
        id: null,
        isPersistent: false,
      },
    ]);
    expect(session.findDomain(NAME)).toEqual(session.listDomains()[0]);
    expect(session.version()).toEqual({ libraryVersion: "9.0.0", hypervisorVersion: "7.2.22" });
  });

  it("findDomain gives null for a domain that is not there or ends meanwhile", () => {
    for (const failing of ["domainLookupByName", "domainGetState"] as const) {
      const stub = world({ failing, failure: { code: 42, domain: 10, message: "Domain not found" } });
      expect(LibvirtCalls.open(stubBindings(stub), "test:///default").findDomain(NAME)).toBe(null);
    }
  });

  it("listDomains leaves out domains that end meanwhile", () => {
    const stub = world({
      failing: "domainGetState",
      failure: { code: 42, domain: 10, message: "Domain not found" },
    });
    expect(LibvirtCalls.open(stubBindings(stub), "test:///default").listDomains()).toEqual([]);
    expect(stub.live.size).toBe(1);
  });

  it("startDomain gives MACHINE_NOT_FOUND for a domain that is not there", () => {
    const stub = world({
      failing: "domainLookupByName",
      failure: { code: 42, domain: 10, message: "Domain not found" },
    });
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    expect(refusalOf(() => session.startDomain(NAME)).code).toBe("MACHINE_NOT_FOUND");
    expect(stub.calls).not.toContain("domainCreate");
  });

  it("open silences libvirt before it connects, and holds nothing when it cannot", () => {
    const stub = world({ failing: "connectOpen" });
    const error = refusalOf(() => LibvirtCalls.open(stubBindings(stub), "qemu:///system"));
    expect(error.code).toBe("HYPERVISOR_UNAVAILABLE");
    expect(error.message).toBe(
      `Cannot open connection "qemu:///system": libvirt reports "${FAILURE.message}"`,
    );
    expect(stub.calls).toEqual(["setSilentErrorFunc", "connectOpen"]);
    expect(stub.live.size).toBe(0);
  });

  it("LV07 close releases once; later calls fail without reaching C", () => {
    const stub = world({ failing: "connectClose" });
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    session.close();
    session.close();
    const before = stub.calls.length;
    for (const operation of Object.values(OPERATIONS)) {
      expect(refusalOf(() => operation(session)).code).toBe("HYPERVISOR_UNAVAILABLE");
    }
    expect(stub.calls.length).toBe(before);
    expect(stub.badFrees).toEqual([]);
  });

  it("LV07 20,000 look-ups leave the account of pointers even", () => {
    const stub = world();
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    for (let round = 0; round < 20_000; round++) session.findDomain(NAME);
    expect({ live: stub.live.size, badFrees: stub.badFrees }).toEqual({ live: 1, badFrees: [] });
  });

  it.each(["a\0b", "\ud800"])("LV08 refuses text that C would read as another, %j", (text) => {
    const stub = world();
    const bindings = stubBindings(stub);
    const session = LibvirtCalls.open(bindings, "test:///default");
    const before = stub.calls.length;
    expect(refusalOf(() => session.destroyDomain(text)).code).toBe("REQUEST_INVALID");
    expect(refusalOf(() => session.defineDomain(text)).code).toBe("REQUEST_INVALID");
    expect(refusalOf(() => LibvirtCalls.open(bindings, text)).code).toBe("REQUEST_INVALID");
    expect(stub.calls.length).toBe(before);
  });

  it("LV08 says so when libvirt fails without leaving an error", () => {
    const stub = world({ failing: "domainCreate", failure: { code: 0, domain: 0, message: null } });
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    expect(refusalOf(() => session.startDomain(NAME)).message).toBe(
      `Cannot start domain "${NAME}": libvirt failed and gave no reason`,
    );
  });

  it("defines with validation; undefines with state and records, keeping NVRAM", () => {
    const stub = world();
    const session = LibvirtCalls.open(stubBindings(stub), "test:///default");
    session.defineDomain("<domain/>");
    session.undefineDomain(NAME);
    // 1 VALIDATE; 1 MANAGED_SAVE | 2 SNAPSHOTS_METADATA | 8 KEEP_NVRAM | 16 CHECKPOINTS_METADATA
    expect(stub.calls.filter((call) => call.startsWith("flags"))).toEqual(["flags 1", "flags 27"]);
  });
});
