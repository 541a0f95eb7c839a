import koffi from "koffi";

import { ShimError } from "../errors.ts";
import type { CallbackPointer, DomainPointer, EventBindings, LibvirtBindings } from "./bindings.ts";

const LIBRARY = "libvirt.so.0";
const REMEDY = "apt-get install libvirt0";
/** The shortest that is not always due: libvirt frees what was removed in turns in which nothing else is due. */
const IDLE_MS = 1;
/** VIR_DOMAIN_EVENT_ID_LIFECYCLE. */
const EVENT_ID_LIFECYCLE = 0;

/**
 * The real table. Loads the library and looks every symbol up, so that a later call cannot miss one.
 *
 * @param library soname, looked up by the dynamic linker
 * @throws {ShimError} HYPERVISOR_LIBRARY_MISSING when the library cannot be loaded or lacks a symbol
 * @see https://libvirt.org/html/libvirt-libvirt-domain.html (libvirt 9.0)
 */
export function loadLibvirt(library: string = LIBRARY): LibvirtBindings {
  const loaded = loadLibrary(library);

  function address(symbol: string): bigint {
    try {
      return loaded.symbol(symbol);
    } catch (cause) {
      throw new ShimError(
        "HYPERVISOR_LIBRARY_MISSING",
        `Cannot use libvirt: "${library}" lacks "${symbol}", libvirt 9.0 or later was expected`,
        { cause, details: { library, symbol, remedy: REMEDY } },
      );
    }
  }
  const declare: Declare = (symbol, result, parameters) => {
    address(symbol);
    return loaded.func(symbol, result, parameters);
  };

  const free = declare("free", "void", ["void *"]);
  // not koffi's "str!": that frees with whatever malloc the runtime's own binary was linked with
  const ownedString = koffi.disposable("str", free);
  const numberOut = koffi.out(koffi.pointer("int"));
  const versionOut = koffi.out(koffi.pointer("unsigned long"));
  const arrayOut = koffi.out(koffi.pointer(koffi.pointer("void *")));

  const setErrorFunc = declare("virSetErrorFunc", "void", ["void *", "void *"]);
  const getVersion = declare("virGetVersion", "int", [versionOut, "str", "void *"]);
  // As error function: libvirt calls it with our userData, NULL, as its first argument, which makes it a native
  // no-op. A JavaScript callback would abort the process when libvirt raised an error on a thread of its own
  const silentErrorFunc = address("virResetError");
  const getDomainCapabilities = declare("virConnectGetDomainCapabilities", ownedString, [
    "void *",
    "str",
    "str",
    "str",
    "str",
    "unsigned int",
  ]);

  return {
    setSilentErrorFunc: () => setErrorFunc(null, silentErrorFunc),
    getLastErrorCode: declare("virGetLastErrorCode", "int", []),
    getLastErrorDomain: declare("virGetLastErrorDomain", "int", []),
    getLastErrorMessage: declare("virGetLastErrorMessage", "str", []),
    getVersion: (libraryVersion) => getVersion(libraryVersion, null, null),
    connectOpen: declare("virConnectOpen", "void *", ["str"]),
    connectClose: declare("virConnectClose", "int", ["void *"]),
    connectGetVersion: declare("virConnectGetVersion", "int", ["void *", versionOut]),
    connectGetCapabilities: declare("virConnectGetCapabilities", ownedString, ["void *"]),
    connectListAllDomains: declare("virConnectListAllDomains", "int", ["void *", arrayOut, "unsigned int"]),
    readDomainArray: (array, count) => koffi.decode(array, "void *", count),
    free,
    domainDefineXmlFlags: declare("virDomainDefineXMLFlags", "void *", ["void *", "str", "unsigned int"]),
    domainLookupByName: declare("virDomainLookupByName", "void *", ["void *", "str"]),
    domainCreate: declare("virDomainCreate", "int", ["void *"]),
    domainShutdown: declare("virDomainShutdown", "int", ["void *"]),
    domainDestroy: declare("virDomainDestroy", "int", ["void *"]),
    domainUndefineFlags: declare("virDomainUndefineFlags", "int", ["void *", "unsigned int"]),
    domainGetXmlDesc: declare("virDomainGetXMLDesc", ownedString, ["void *", "unsigned int"]),
    domainGetName: declare("virDomainGetName", "str", ["void *"]),
    domainGetUuidString: declare("virDomainGetUUIDString", "int", [
      "void *",
      koffi.out(koffi.pointer("uint8_t")),
    ]),
    domainGetId: declare("virDomainGetID", "unsigned int", ["void *"]),
    domainGetState: declare("virDomainGetState", "int", ["void *", numberOut, numberOut, "unsigned int"]),
    domainIsPersistent: declare("virDomainIsPersistent", "int", ["void *"]),
    domainFree: declare("virDomainFree", "int", ["void *"]),
    connectGetDomainCapabilities: (connection, architecture, virtualizationType) =>
      getDomainCapabilities(connection, null, architecture, null, virtualizationType, 0),
    ...declareEvents(declare),
  };
}

type CType = Parameters<typeof koffi.as>[1];
type Declare = (
  symbol: string,
  result: CType,
  parameters: CType[],
) => ReturnType<ReturnType<typeof koffi.load>["func"]>;

function declareEvents(declare: Declare): EventBindings {
  const close = koffi.proto("void", ["void *", "int", "void *"]);
  const lifecycle = koffi.proto("void", ["void *", "void *", "int", "int", "void *"]);
  const callback = (called: (...parameters: never[]) => void, prototype: CType) =>
    koffi.register(called, koffi.pointer(prototype)) as CallbackPointer;
  const addTimeout = declare("virEventAddTimeout", "int", ["int", "void *", "void *", "void *"]);
  const setCloseCallback = declare("virConnectRegisterCloseCallback", "int", [
    "void *",
    "void *",
    "void *",
    "void *",
  ]);
  const registerAny = declare("virConnectDomainEventRegisterAny", "int", [
    "void *",
    "void *",
    "int",
    "void *",
    "void *",
    "void *",
  ]);
  // `int abs(int)`, given the timer's number: native, and of no effect
  const nothing = koffi.load(null).symbol("abs");
  return {
    eventRegisterDefaultImpl: declare("virEventRegisterDefaultImpl", "int", []),
    eventAddIdleTimeout: () => addTimeout(IDLE_MS, nothing, null, null),
    eventRemoveTimeout: declare("virEventRemoveTimeout", "int", ["int"]),
    eventRunDefaultImpl: declare("virEventRunDefaultImpl", "int", []),
    connectSetKeepAlive: declare("virConnectSetKeepAlive", "int", ["void *", "int", "unsigned int"]),
    connectRegisterCloseCallback: (connection, callback) =>
      setCloseCallback(connection, callback, null, null),
    connectUnregisterCloseCallback: declare("virConnectUnregisterCloseCallback", "int", [
      "void *",
      "void *",
    ]),
    connectDomainEventRegisterLifecycle: (connection, callback) =>
      registerAny(connection, null, EVENT_ID_LIFECYCLE, callback, null, null),
    connectDomainEventDeregisterAny: declare("virConnectDomainEventDeregisterAny", "int", ["void *", "int"]),
    makeCloseCallback: (onClose) => callback((_connection: bigint, reason: number) => onClose(reason), close),
    makeLifecycleCallback: (onEvent) =>
      callback(
        (_connection: bigint, domain: DomainPointer, event: number, detail: number) =>
          onEvent(domain, event, detail),
        lifecycle,
      ),
  };
}

function loadLibrary(library: string) {
  try {
    return koffi.load(library);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ShimError("HYPERVISOR_LIBRARY_MISSING", `Cannot use libvirt: "${library}" cannot be loaded`, {
      cause,
      details: { library, reason, remedy: REMEDY },
    });
  }
}
