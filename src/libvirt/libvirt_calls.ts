import { ShimError } from "../errors.ts";
import type {
  ConnectionPointer,
  DomainArrayPointer,
  DomainPointer,
  LibvirtBindings,
  NumberOut,
} from "./bindings.ts";
import type { ConnectionWatch } from "./connection_watch.ts";
import {
  domainState,
  type DomainStatus,
  type LibvirtVersion,
  shutOffReason,
  versionText,
} from "./domain_status.ts";
import { domainUuid } from "./domain_uuid.ts";
import { libvirtError, type LibvirtFailure, type LibvirtStep, NO_DOMAIN } from "./libvirt_error.ts";

/** VIR_DOMAIN_DEFINE_VALIDATE: check the XML against libvirt's schema; without it unknown elements are dropped. */
const DEFINE_VALIDATE = 1;
/**
 * VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | SNAPSHOTS_METADATA | CHECKPOINTS_METADATA: without them libvirt refuses a domain
 * that has any. KEEP_NVRAM: the variable store lies in the machine's folder and goes with it.
 */
const UNDEFINE_FLAGS = 1 | 2 | 16 | 8;
/** VIR_ERR_INVALID_ARG: among others, an unknown flag. */
const INVALID_ARGUMENT = 8;
/** virDomainGetID's `(unsigned int)-1`. */
const NO_ID = 0xffff_ffff;
/** VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE: the definition as it is kept, fit to be defined again. */
const KEPT_XML_FLAGS = 1 | 2;
/** VIR_DOMAIN_SHUTOFF. */
const SHUT_OFF = 5;

type Context = { readonly step: LibvirtStep; readonly action: string };

/**
 * One connection, with blocking calls: to be used on the one thread that owns it, and never on the main thread.
 *
 * Every failure is read on the spot, before any other call can overwrite this thread's last error; every domain
 * pointer is freed exactly once, whatever fails.
 */
export class LibvirtCalls {
  readonly #bindings: LibvirtBindings;
  readonly #watch: ConnectionWatch | null;
  #pointer: ConnectionPointer | null;

  private constructor(
    bindings: LibvirtBindings,
    pointer: ConnectionPointer,
    watch: ConnectionWatch | null,
  ) {
    this.#bindings = bindings;
    this.#pointer = pointer;
    this.#watch = watch;
  }

  /**
   * Connects.
   *
   * @param options.watch is told of the connection's end and of the domains' changes from now until `close`
   * @throws {ShimError} HYPERVISOR_UNAVAILABLE when nothing answers or access is refused; CONFIG_INVALID for a
   * malformed URI
   */
  static open(
    bindings: LibvirtBindings,
    uri: string,
    { watch = null }: { readonly watch?: ConnectionWatch | null } = {},
  ): LibvirtCalls {
    const context: Context = { step: "open", action: `open connection "${uri}"` };
    checkText(uri);
    bindings.setSilentErrorFunc();
    const pointer = bindings.connectOpen(uri);
    if (pointer === null) throw lastError(bindings, context);
    const calls = new LibvirtCalls(bindings, pointer, watch);
    if (watch === null || watch.attach(pointer)) return calls;
    const failure = lastError(bindings, context);
    calls.close();
    throw failure;
  }

  /** Gives the connection back. A second call changes nothing; every other call then fails. */
  close(): void {
    const pointer = this.#pointer;
    if (pointer === null) return;
    this.#pointer = null;
    this.#watch?.detach();
    // Negative when the daemon is gone: the pointer is released all the same, and there is nothing left to close
    this.#bindings.connectClose(pointer);
  }

  version(): LibvirtVersion {
    const context: Context = { step: "operate", action: "read libvirt's version" };
    const connection = this.#connection(context);
    const library: NumberOut = [0];
    const hypervisor: NumberOut = [0];
    this.#checkResult(this.#bindings.getVersion(library), context);
    this.#checkResult(this.#bindings.connectGetVersion(connection, hypervisor), context);
    return { libraryVersion: versionText(library[0]), hypervisorVersion: versionText(hypervisor[0]) };
  }

  capabilitiesXml(): string {
    const context: Context = { step: "operate", action: "read the hypervisor's capabilities" };
    return this.#checkPresent(this.#bindings.connectGetCapabilities(this.#connection(context)), context);
  }

  domainCapabilitiesXml(architecture: string, virtualizationType: string): string {
    const context: Context = { step: "operate", action: "read what domains the hypervisor can run" };
    checkText(architecture);
    checkText(virtualizationType);
    return this.#checkPresent(
      this.#bindings.connectGetDomainCapabilities(
        this.#connection(context),
        architecture,
        virtualizationType,
      ),
      context,
    );
  }

  defineDomain(xml: string): DomainStatus {
    const context: Context = { step: "define", action: "define domain" };
    checkText(xml);
    const connection = this.#connection(context);
    const domain = this.#checkPresent(
      this.#bindings.domainDefineXmlFlags(connection, xml, DEFINE_VALIDATE),
      context,
    );
    try {
      return this.#status(domain);
    } finally {
      this.#bindings.domainFree(domain);
    }
  }

  findDomain(name: string): DomainStatus | null {
    try {
      return this.#withDomain(name, `find domain "${name}"`, (domain) => this.#status(domain));
    } catch (error) {
      if (isNoDomain(error)) return null;
      throw error;
    }
  }

  listDomains(): DomainStatus[] {
    const context: Context = { step: "operate", action: "list domains" };
    const out: [DomainArrayPointer | null] = [null];
    const count = this.#checkResult(
      this.#bindings.connectListAllDomains(this.#connection(context), out, 0),
      context,
    );
    const array = out[0];
    if (array === null) return [];
    let domains: DomainPointer[];
    try {
      domains = this.#bindings.readDomainArray(array, count);
    } finally {
      this.#bindings.free(array);
    }
    try {
      return domains.flatMap((domain) => this.#statusUnlessGone(domain));
    } finally {
      for (const domain of domains) this.#bindings.domainFree(domain);
    }
  }

  startDomain(name: string): void {
    this.#operate(name, "start", (domain) => this.#bindings.domainCreate(domain));
  }

  shutdownDomain(name: string): void {
    this.#operate(name, "shut down", (domain) => this.#bindings.domainShutdown(domain));
  }

  destroyDomain(name: string): void {
    this.#operate(name, "destroy", (domain) => this.#bindings.domainDestroy(domain));
  }

  undefineDomain(name: string): void {
    this.#operate(name, "undefine", (domain) => {
      const result = this.#bindings.domainUndefineFlags(domain, UNDEFINE_FLAGS);
      if (result >= 0 || this.#bindings.getLastErrorCode() !== INVALID_ARGUMENT) return result;
      // A driver that keeps none of what the flags are about, such as libvirt's own for tests
      return this.#bindings.domainUndefineFlags(domain, 0);
    });
  }

  domainXml(name: string): string {
    return this.#xml(name, 0);
  }

  keptDomainXml(name: string): string {
    return this.#xml(name, KEPT_XML_FLAGS);
  }

  #xml(name: string, flags: number): string {
    const action = `read XML of domain "${name}"`;
    return this.#withDomain(
      name,
      action,
      (domain) =>
        this.#checkPresent(this.#bindings.domainGetXmlDesc(domain, flags), { step: "operate", action }),
    );
  }

  #operate(name: string, verb: string, call: (domain: DomainPointer) => number): void {
    const action = `${verb} domain "${name}"`;
    this.#withDomain(name, action, (domain) => this.#checkResult(call(domain), { step: "operate", action }));
  }

  #withDomain<Result>(name: string, action: string, use: (domain: DomainPointer) => Result): Result {
    const context: Context = { step: "operate", action };
    checkText(name);
    const domain = this.#checkPresent(
      this.#bindings.domainLookupByName(this.#connection(context), name),
      context,
    );
    try {
      return use(domain);
    } finally {
      // Its result says nothing: it fails only for what is no domain pointer
      this.#bindings.domainFree(domain);
    }
  }

  #status(domain: DomainPointer): DomainStatus {
    const context: Context = { step: "operate", action: "read state of domain" };
    const name = this.#checkPresent(this.#bindings.domainGetName(domain), context);
    const uuid = this.#checkPresent(domainUuid(this.#bindings, domain), context);
    const state: NumberOut = [0];
    const reason: NumberOut = [0];
    this.#checkResult(this.#bindings.domainGetState(domain, state, reason, 0), context);
    const isPersistent = this.#checkResult(this.#bindings.domainIsPersistent(domain), context) === 1;
    // libvirt keeps the id in the pointer, as it was at look-up, and reports no failure with it
    const id = this.#bindings.domainGetId(domain);
    return {
      name,
      uuid,
      state: domainState(Number(state[0])),
      shutOffReason: Number(state[0]) === SHUT_OFF ? shutOffReason(Number(reason[0])) : null,
      id: id === NO_ID ? null : id,
      isPersistent,
    };
  }

  /** A domain may end between the list and the question for its state. */
  #statusUnlessGone(domain: DomainPointer): DomainStatus[] {
    try {
      return [this.#status(domain)];
    } catch (error) {
      if (isNoDomain(error)) return [];
      throw error;
    }
  }

  #connection(context: Context): ConnectionPointer {
    if (this.#pointer !== null) return this.#pointer;
    throw new ShimError("HYPERVISOR_UNAVAILABLE", `Cannot ${context.action}: the connection is closed`);
  }

  #checkPresent<Present>(result: Present | null, context: Context): Present {
    if (result === null) throw lastError(this.#bindings, context);
    return result;
  }

  #checkResult(result: number, context: Context): number {
    if (result < 0) throw lastError(this.#bindings, context);
    return result;
  }
}

function lastError(bindings: LibvirtBindings, context: Context): ShimError {
  const failure: LibvirtFailure = {
    code: bindings.getLastErrorCode(),
    domain: bindings.getLastErrorDomain(),
    message: bindings.getLastErrorMessage(),
  };
  return libvirtError(failure, context);
}

function isNoDomain(error: unknown): boolean {
  return error instanceof ShimError && error.details["libvirtCode"] === NO_DOMAIN;
}

/** C would end a string at its first NUL and see U+FFFD for half a surrogate pair: another name than the one given. */
function checkText(text: string): void {
  if (!text.includes("\0") && text.isWellFormed()) return;
  throw new ShimError(
    "REQUEST_INVALID",
    "Cannot call libvirt: a name, an XML or a URI holds a NUL or half a surrogate pair, well-formed text was expected",
  );
}
