declare const kind: unique symbol;

/** A `virConnectPtr`. Ours until `connectClose`. */
export type ConnectionPointer = bigint & { readonly [kind]: "virConnectPtr" };
/** A `virDomainPtr`. Ours until `domainFree`, to be called exactly once. */
export type DomainPointer = bigint & { readonly [kind]: "virDomainPtr" };
/** A `virDomainPtr *` on libvirt's heap. Ours until `free`; the pointers in it are freed one by one. */
export type DomainArrayPointer = bigint & { readonly [kind]: "virDomainPtr *" };

/** A JavaScript function as C sees it. Never freed: one of each serves a worker for as long as it lives. */
export type CallbackPointer = bigint & { readonly [kind]: "callback" };

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
  /** `int virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned int flags)`. */
  domainGetState(domain: DomainPointer, state: NumberOut, reason: NumberOut, flags: number): number;
  /** `int virDomainIsPersistent(virDomainPtr dom)`: 1 or 0. */
  domainIsPersistent(domain: DomainPointer): number;
  /** `int virDomainFree(virDomainPtr domain)`: gives our reference back; touches no guest. */
  domainFree(domain: DomainPointer): number;

  /**
   * `char *virConnectGetDomainCapabilities(virConnectPtr conn, const char *emulatorbin, const char *arch, const char
   * *machine, const char *virttype, unsigned int flags)`, with emulator and machine NULL: koffi frees the C string.
   */
  connectGetDomainCapabilities(
    connection: ConnectionPointer,
    architecture: string,
    virtualizationType: string,
  ): string | null;
} & EventBindings;

/** What is needed to be told of changes; all of it to be used on the one thread that runs the event loop. */
export type EventBindings = {
  /** `int virEventRegisterDefaultImpl(void)`: for the whole OS process, before the first connection is opened. */
  eventRegisterDefaultImpl(): number;
  /**
   * `int virEventAddTimeout(int frequency, virEventTimeoutCallback cb, void *opaque, virFreeCallback ff)`, due each
   * millisecond and with a native function that does nothing: `eventRunDefaultImpl` waits no longer. Gives the timer.
   */
  eventAddIdleTimeout(): number;
  /** `int virEventRemoveTimeout(int timer)`. */
  eventRemoveTimeout(timer: number): number;
  /** `int virEventRunDefaultImpl(void)`: calls the callbacks that are due, on this thread. */
  eventRunDefaultImpl(): number;
  /** `int virConnectSetKeepAlive(virConnectPtr conn, int interval, unsigned int count)`: 1 when it is not needed. */
  connectSetKeepAlive(connection: ConnectionPointer, intervalSeconds: number, count: number): number;
  /** `int virConnectRegisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb, void *opaque, virFreeCallback freecb)`. */
  connectRegisterCloseCallback(connection: ConnectionPointer, callback: CallbackPointer): number;
  /** `int virConnectUnregisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb)`. */
  connectUnregisterCloseCallback(connection: ConnectionPointer, callback: CallbackPointer): number;
  /**
   * `int virConnectDomainEventRegisterAny(virConnectPtr conn, virDomainPtr dom, int eventID,
   * virConnectDomainEventGenericCallback cb, void *opaque, virFreeCallback freecb)` for every domain's
   * VIR_DOMAIN_EVENT_ID_LIFECYCLE. Gives the id to deregister by.
   */
  connectDomainEventRegisterLifecycle(connection: ConnectionPointer, callback: CallbackPointer): number;
  /** `int virConnectDomainEventDeregisterAny(virConnectPtr conn, int callbackID)`. */
  connectDomainEventDeregisterAny(connection: ConnectionPointer, callbackId: number): number;
  /** Not C: `void (*)(virConnectPtr conn, int reason, void *opaque)` made of a function, which must not throw. */
  makeCloseCallback(onClose: (reason: number) => void): CallbackPointer;
  /**
   * Not C: `void (*)(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *opaque)` made of a function,
   * which must not throw. The domain is libvirt's: it is not freed, and of no use after the call.
   */
  makeLifecycleCallback(
    onEvent: (domain: DomainPointer, event: number, detail: number) => void,
  ): CallbackPointer;
};
