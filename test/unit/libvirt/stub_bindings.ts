import type {
  CallbackPointer,
  ConnectionPointer,
  DomainArrayPointer,
  DomainPointer,
  LibvirtBindings,
} from "../../../src/libvirt/bindings.ts";

/** What the C side holds while a test runs; `failing` is the one function that fails, with that last error. */
export type StubWorld = {
  failing: keyof LibvirtBindings | null;
  failure: { code: number; domain: number; message: string | null };
  domains: { name: string; uuid: string; state: number; id: number; isPersistent: boolean }[];
  readonly calls: string[];
  /** Pointers given out and not given back. */
  readonly live: Set<bigint>;
  /** Pointers given back that were not live: freed twice, or never given out. */
  readonly badFrees: bigint[];
};

/** A libvirt in memory: hands out fresh pointers and keeps account of each. */
export function stubBindings(world: StubWorld): LibvirtBindings {
  let next = 1n;
  const domainOf = new Map<bigint, StubWorld["domains"][number]>();
  const lastError = { code: 0, domain: 0, message: null as string | null };

  function fails(call: keyof LibvirtBindings): boolean {
    world.calls.push(call);
    const failed = world.failing === call;
    // As libvirt does: each call begins by forgetting the last error
    Object.assign(lastError, failed ? world.failure : { code: 0, domain: 0, message: null });
    return failed;
  }
  function give(): bigint {
    world.live.add(next);
    return next++;
  }
  function giveDomain(domain: StubWorld["domains"][number]): DomainPointer {
    const pointer = give();
    domainOf.set(pointer, domain);
    return pointer as DomainPointer;
  }
  function takeBack(pointer: bigint): void {
    if (!world.live.delete(pointer)) world.badFrees.push(pointer);
  }
  function domain(pointer: DomainPointer): StubWorld["domains"][number] {
    const found = domainOf.get(pointer);
    if (found === undefined || !world.live.has(pointer)) throw new Error(`use of dead pointer ${pointer}`);
    return found;
  }
  const status = (call: keyof LibvirtBindings) => (pointer: DomainPointer) => {
    domain(pointer);
    return fails(call) ? -1 : 0;
  };

  return {
    setSilentErrorFunc: () => void world.calls.push("setSilentErrorFunc"),
    getLastErrorCode: () => lastError.code,
    getLastErrorDomain: () => lastError.domain,
    getLastErrorMessage: () => lastError.message,
    getVersion(out) {
      out[0] = 9_000_000;
      return fails("getVersion") ? -1 : 0;
    },
    connectOpen: () => fails("connectOpen") ? null : give() as ConnectionPointer,
    connectClose(pointer) {
      takeBack(pointer);
      return fails("connectClose") ? -1 : 0;
    },
    connectGetVersion(_, out) {
      out[0] = 7_002_022n;
      return fails("connectGetVersion") ? -1 : 0;
    },
    connectGetCapabilities: () => fails("connectGetCapabilities") ? null : "<capabilities/>",
    connectListAllDomains(_, out) {
      if (fails("connectListAllDomains")) return -1;
      out[0] = give() as DomainArrayPointer;
      return world.domains.length;
    },
    readDomainArray: () => world.domains.map(giveDomain),
    free: (pointer) => takeBack(pointer),
    domainDefineXmlFlags(_, _xml, flags) {
      world.calls.push(`flags ${flags}`);
      const [first] = world.domains;
      return fails("domainDefineXmlFlags") || first === undefined ? null : giveDomain(first);
    },
    domainLookupByName(_, name) {
      const found = world.domains.find((candidate) => candidate.name === name);
      return fails("domainLookupByName") || found === undefined ? null : giveDomain(found);
    },
    domainCreate: status("domainCreate"),
    domainShutdown: status("domainShutdown"),
    domainDestroy: status("domainDestroy"),
    domainUndefineFlags(pointer, flags) {
      world.calls.push(`flags ${flags}`);
      return status("domainUndefineFlags")(pointer);
    },
    domainGetXmlDesc: (pointer) =>
      fails("domainGetXmlDesc") ? null : `<domain name="${domain(pointer).name}"/>`,
    domainGetName: (pointer) => fails("domainGetName") ? null : domain(pointer).name,
    domainGetUuidString(pointer, text) {
      new TextEncoder().encodeInto(domain(pointer).uuid, text);
      return fails("domainGetUuidString") ? -1 : 0;
    },
    domainGetId: (pointer) => domain(pointer).id,
    domainGetState(pointer, out, reason) {
      out[0] = domain(pointer).state;
      reason[0] = 1;
      return fails("domainGetState") ? -1 : 0;
    },
    domainIsPersistent(pointer) {
      if (fails("domainIsPersistent")) return -1;
      return domain(pointer).isPersistent ? 1 : 0;
    },
    domainFree(pointer) {
      takeBack(pointer);
      fails("domainFree");
      return 0;
    },
    connectGetDomainCapabilities: () =>
      fails("connectGetDomainCapabilities") ? null : "<domainCapabilities/>",
    eventRegisterDefaultImpl: () => fails("eventRegisterDefaultImpl") ? -1 : 0,
    eventAddIdleTimeout: () => 1,
    eventRemoveTimeout: () => 0,
    eventRunDefaultImpl: () => 0,
    connectSetKeepAlive: () => fails("connectSetKeepAlive") ? -1 : 0,
    connectRegisterCloseCallback: () => fails("connectRegisterCloseCallback") ? -1 : 0,
    connectUnregisterCloseCallback: () => 0,
    connectDomainEventRegisterLifecycle: () => fails("connectDomainEventRegisterLifecycle") ? -1 : 0,
    connectDomainEventDeregisterAny: () => 0,
    makeCloseCallback: () => 1n as CallbackPointer,
    makeLifecycleCallback: () => 2n as CallbackPointer,
  };
}
