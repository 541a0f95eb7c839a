import type { CallbackPointer, ConnectionPointer, DomainPointer, LibvirtBindings } from "./bindings.ts";
import { closeReason, type DomainEvent, domainEventName } from "./domain_event.ts";
import { domainUuid } from "./domain_uuid.ts";

/** What a watched connection tells unasked. */
export type Notice =
  | { readonly kind: "event"; readonly event: DomainEvent }
  | { readonly kind: "closed"; readonly reason: string };

const TURNS = 2;
/** How late an event or a lost connection may be noticed; a look costs 1 ms of this thread. */
const LOOK_INTERVAL_MS = 50;
/** A daemon that is silent for a second is asked, and given up when three questions stay unanswered: 4 s. */
const KEEPALIVE = { intervalSeconds: 1, count: 3 };
/** VIR_ERR_NO_SUPPORT: a driver that lives inside the library, without a daemon that could go. */
const NO_SUPPORT = 3;

/**
 * Runs libvirt's event loop on the worker's own thread, in looks of a millisecond, and turns its callbacks into notices.
 *
 * Callbacks are called by whoever runs the loop, and by calls on the same connection: both are this thread. So no C
 * thread ever calls JavaScript, which koffi could only serve by stopping that thread until ours is idle, and which
 * aborts the process when it comes while the runtime ends. The loop belongs to the whole OS process: at most one
 * thread may run it.
 */
export class ConnectionWatch {
  readonly #bindings: LibvirtBindings;
  readonly #tell: (notice: Notice) => void;
  readonly #onClose: CallbackPointer;
  readonly #onLifecycle: CallbackPointer;
  readonly #idleTimer: number;
  readonly #interval: NodeJS.Timeout;
  #attached: { readonly connection: ConnectionPointer; readonly callbackId: number } | null = null;

  /** To be made before the connection to watch is opened: libvirt asks for the loop when it opens. */
  constructor(bindings: LibvirtBindings, tell: (notice: Notice) => void) {
    this.#bindings = bindings;
    this.#tell = tell;
    bindings.eventRegisterDefaultImpl();
    this.#idleTimer = bindings.eventAddIdleTimeout();
    this.#onClose = bindings.makeCloseCallback((reason) =>
      tell({ kind: "closed", reason: closeReason(reason) })
    );
    this.#onLifecycle = bindings.makeLifecycleCallback((domain, event, detail) =>
      tell(this.#read(domain, { event, detail }))
    );
    this.#interval = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
  }

  /**
   * Starts to watch a connection; the one before must be detached.
   *
   * @returns false when libvirt refused, with this thread's last error telling why
   */
  attach(connection: ConnectionPointer): boolean {
    const { intervalSeconds, count } = KEEPALIVE;
    if (this.#fails(this.#bindings.connectSetKeepAlive(connection, intervalSeconds, count))) return false;
    if (this.#fails(this.#bindings.connectRegisterCloseCallback(connection, this.#onClose))) return false;
    const callbackId = this.#bindings.connectDomainEventRegisterLifecycle(connection, this.#onLifecycle);
    this.#attached = { connection, callbackId };
    return callbackId >= 0;
  }

  /** Takes the callbacks back. To be called before the connection is closed, which they would keep open. */
  detach(): void {
    const attached = this.#attached;
    this.#attached = null;
    if (attached === null) return;
    // Both fail harmlessly on a connection whose daemon is gone: libvirt drops its own half all the same
    if (attached.callbackId >= 0) {
      this.#bindings.connectDomainEventDeregisterAny(attached.connection, attached.callbackId);
    }
    this.#bindings.connectUnregisterCloseCallback(attached.connection, this.#onClose);
  }

  /** Ends the looks; the connection must be closed by now. */
  stop(): void {
    clearInterval(this.#interval);
    // libvirt frees a closed connection's parts from its loop
    this.#look();
    this.#bindings.eventRemoveTimeout(this.#idleTimer);
  }

  /** In the turn in which our timer is due, what libvirt removed earlier is not freed; in the one after it is. */
  #look(): void {
    for (let turn = 0; turn < TURNS; turn++) {
      if (this.#bindings.eventRunDefaultImpl() >= 0) continue;
      return this.#tell({ kind: "closed", reason: "libvirt's event loop failed" });
    }
  }

  #fails(result: number): boolean {
    return result < 0 && this.#bindings.getLastErrorCode() !== NO_SUPPORT;
  }

  /** Never throws: C cannot take it. An event that cannot be read ends the connection, so that all is read anew. */
  #read(domain: DomainPointer, { event, detail }: { event: number; detail: number }): Notice {
    const name = this.#bindings.domainGetName(domain);
    const uuid = domainUuid(this.#bindings, domain);
    if (name === null || uuid === null) return { kind: "closed", reason: "an event could not be read" };
    return { kind: "event", event: { name, uuid, event: domainEventName(event), detail } };
  }
}
