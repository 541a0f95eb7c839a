import koffi from "koffi";

import { ShimError } from "../errors.ts";

declare const kind: unique symbol;

/** A `virConnectPtr`. Ours until `connectClose`. */
export type ConnectionPointer = bigint & { readonly [kind]: "virConnectPtr" };
/** A `virDomainPtr`. Ours until `domainFree`, to be called exactly once. */
export type DomainPointer = bigint & { readonly [kind]: "virDomainPtr" };
/** A `virDomainPtr *` on libvirt's heap. Ours until `free`; the pointers in it are freed one by one. */
export type DomainArrayPointer = bigint & { readonly [kind]: "virDomainPtr *" };

/** Where C writes a number: koffi gives a bigint when it does not fit. */
export type NumberOut = [number | bigint];

/**
 * The C functions in use, named as in C minus `vir`. An interface, so that a test can let each call fail in turn.
 *
 * Conventions: a null pointer or a negative number is a failure whose reason lies in this thread's last error, until
 * the next call. Strings given must hold no NUL; strings returned are copies (bytes that are not UTF-8 become U+FFFD).
 */
export type LibvirtBindings = {
  /**
   * `void virSetErrorFunc(void *userData, virErrorFunc handler)`, with a handler that keeps stderr clean, for the
   * whole OS process.
   */
  setSilentErrorFunc(): void;
  /** `int virGetLastErrorCode(void)`: a virErrorNumber, 0 for none. */
  getLastErrorCode(): number;
  /** `int virGetLastErrorDomain(void)`: a virErrorDomain, 0 for none. */
  getLastErrorDomain(): number;
  /** `const char *virGetLastErrorMessage(void)`: owned by libvirt. */
  getLastErrorMessage(): string | null;

  /** `int virGetVersion(unsigned long *libVer, const char *type, unsigned long *typeVer)`, with the last two NULL. */
  getVersion(libraryVersion: NumberOut): number;

  /** `virConnectPtr virConnectOpen(const char *name)`: released by `connectClose`. */
  connectOpen(uri: string): ConnectionPointer | null;
  /** `int virConnectClose(virConnectPtr conn)`: the references left, 0 for the last. */
  connectClose(connection: ConnectionPointer): number;
  /** `int virConnectGetVersion(virConnectPtr conn, unsigned long *hvVer)`: writes 0 when it cannot be told. */
  connectGetVersion(connection: ConnectionPointer, hypervisorVersion: NumberOut): number;
  /** `char *virConnectGetCapabilities(virConnectPtr conn)`: koffi frees the C string. */
  connectGetCapabilities(connection: ConnectionPointer): string | null;
  /**
   * `int virConnectListAllDomains(virConnectPtr conn, virDomainPtr **domains, unsigned int flags)`: the count; the
   * array is released by `free`, each domain in it by `domainFree`.
   */
  connectListAllDomains(
    connection: ConnectionPointer,
    domains: [DomainArrayPointer | null],
    flags: number,
  ): number;
  /** Not C: the `count` pointers of an array. */
  readDomainArray(array: DomainArrayPointer, count: number): DomainPointer[];
  /** `void free(void *ptr)`, of the C library that libvirt itself is linked to. */
  free(array: DomainArrayPointer): void;

  /** `virDomainPtr virDomainDefineXMLFlags(virConnectPtr conn, const char *xml, unsigned int flags)`: `domainFree`. */
  domainDefineXmlFlags(connection: ConnectionPointer, xml: string, flags: number): DomainPointer | null;
  /** `virDomainPtr virDomainLookupByName(virConnectPtr conn, const char *name)`: released by `domainFree`. */
  domainLookupByName(connection: ConnectionPointer, name: string): DomainPointer | null;
  /** `int virDomainCreate(virDomainPtr domain)`. */
  domainCreate(domain: DomainPointer): number;
  /** `int virDomainShutdown(virDomainPtr domain)`. */
  domainShutdown(domain: DomainPointer): number;
  /** `int virDomainDestroy(virDomainPtr domain)`: cuts the power; frees no pointer. */
  domainDestroy(domain: DomainPointer): number;
  /** `int virDomainUndefineFlags(virDomainPtr domain, unsigned int flags)`. */
  domainUndefineFlags(domain: DomainPointer, flags: number): number;
  /** `char *virDomainGetXMLDesc(virDomainPtr domain, unsigned int flags)`: koffi frees the C string. */
  domainGetXmlDesc(domain: DomainPointer, flags: number): string | null;
  /** `const char *virDomainGetName(virDomainPtr domain)`: owned by the domain. */
  domainGetName(domain: DomainPointer): string | null;
  /** `int virDomainGetUUIDString(virDomainPtr domain, char *buf)`: writes 36 characters and a NUL into our bytes. */
  domainGetUuidString(domain: DomainPointer, text: Uint8Array): number;
  /** `unsigned int virDomainGetID(virDomainPtr domain)`: `(unsigned int)-1` for a domain that is not active. */
  domainGetId(domain: DomainPointer): number;
  /** `int virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned int flags)`, reason NULL. */
  domainGetState(domain: DomainPointer, state: NumberOut, flags: number): number;
  /** `int virDomainIsPersistent(virDomainPtr dom)`: 1 or 0. */
  domainIsPersistent(domain: DomainPointer): number;
  /** `int virDomainFree(virDomainPtr domain)`: gives our reference back; touches no guest. */
  domainFree(domain: DomainPointer): number;
};

const LIBRARY = "libvirt.so.0";
const REMEDY = "apt-get install libvirt0";

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
  function declare(symbol: string, result: CType, parameters: CType[]) {
    address(symbol);
    return loaded.func(symbol, result, parameters);
  }

  const free = declare("free", "void", ["void *"]);
  // not koffi's "str!": that frees with whatever malloc the runtime's own binary was linked with
  const ownedString = koffi.disposable("str", free);
  const numberOut = koffi.out(koffi.pointer("int"));
  const versionOut = koffi.out(koffi.pointer("unsigned long"));
  const arrayOut = koffi.out(koffi.pointer(koffi.pointer("void *")));

  const setErrorFunc = declare("virSetErrorFunc", "void", ["void *", "void *"]);
  const getVersion = declare("virGetVersion", "int", [versionOut, "str", "void *"]);
  const domainGetState = declare("virDomainGetState", "int", ["void *", numberOut, "void *", "unsigned int"]);
  // As error function: libvirt calls it with our userData, NULL, as its first argument, which makes it a native
  // no-op. A JavaScript callback would abort the process when libvirt raised an error on a thread of its own
  const silentErrorFunc = address("virResetError");

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
    domainGetState: (domain, state, flags) => domainGetState(domain, state, null, flags),
    domainIsPersistent: declare("virDomainIsPersistent", "int", ["void *"]),
    domainFree: declare("virDomainFree", "int", ["void *"]),
  };
}

type CType = Parameters<typeof koffi.as>[1];

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
