import { setTimeout as delay } from "node:timers/promises";
import { type ErrorDetails, ShimError, toShimError } from "../errors.ts";
import type { DomainControl } from "../libvirt/domain_control.ts";
import type { DomainStatus } from "../libvirt/domain_status.ts";
import { ensureDefined } from "./ensure_defined.ts";
import { readGuestLog, SYSTEM_LOG_DIRECTORY } from "./guest_log.ts";

/** The machine's place in libvirt. */
export type OwnDomain = {
  readonly id: string;
  /** The machine's definition. */
  readonly xml: string;
  /** Gives a connection for a while, a new one after one was lost. */
  readonly connect: <T>(body: (libvirt: DomainControl) => Promise<T>) => Promise<T>;
  /** The machine's domain. @throws {ShimError} CONFLICT when another has its name */
  readonly find: (libvirt: DomainControl) => Promise<DomainStatus | null>;
  /** Throws when the machine must not be started; called when it does not run. */
  readonly check: () => Promise<void>;
};

export type StartOptions = {
  readonly signal?: AbortSignal | undefined;
  /** For how long a guest that started is looked at before it counts as started. */
  readonly watchMs?: number;
  readonly logDirectory?: string;
};

const WATCH_MS = 300;
const LOOK_PAUSE_MS = 50;
/** How long a daemon that went away in the middle of a start may take to come back and tell. */
const SETTLE_LIMIT_MS = 5_000;
const SETTLE_PAUSE_MS = 200;

/**
 * Defines the domain unless it is, and starts it: once, whatever fails in between. One that runs is left running.
 *
 * A failed start takes back a definition made here, and touches no disk. When the connection is lost in the middle,
 * libvirt is asked what became of the start, and never told a second time.
 *
 * @throws {ShimError} CONFLICT when the name or the definition is somebody else's; DOMAIN_FAILED with the tail of
 *   QEMU's log when QEMU ended at once; HYPERVISOR_UNAVAILABLE, HYPERVISOR_TIMEOUT with `details.outcome`: `not started`,
 *   or `unknown` when libvirt could not be asked
 */
export async function startDomain(domain: OwnDomain, options: StartOptions = {}): Promise<DomainStatus> {
  const progress = { isNew: false, isStarting: false };
  try {
    return await domain.connect(async (libvirt) => {
      const before = await domain.find(libvirt);
      if (before !== null && before.id !== null) return before;
      await domain.check();
      progress.isNew = (await ensureDefined(libvirt, { xml: domain.xml, before })).isNew;
      progress.isStarting = true;
      await startOnce(libvirt, { domain, isNew: progress.isNew });
      return await watch(libvirt, { domain, isNew: progress.isNew, options });
    });
  } catch (error) {
    const failure = toShimError(error);
    const isLost = failure.code === "HYPERVISOR_UNAVAILABLE" || failure.code === "HYPERVISOR_TIMEOUT";
    if (!progress.isStarting || !isLost) throw failure;
    return await settle(domain, { failure, isNew: progress.isNew, signal: options.signal });
  }
}

async function startOnce(
  libvirt: DomainControl,
  { domain, isNew }: { readonly domain: OwnDomain; readonly isNew: boolean },
): Promise<void> {
  try {
    await libvirt.startDomain(domain.id);
  } catch (error) {
    const failure = toShimError(error);
    // Somebody else was quicker, or the failure says nothing of the guest: either way the truth is asked for
    const status = await domain.find(libvirt).catch(() => undefined);
    if (status === undefined) throw failure;
    if (status !== null && status.id !== null) return;
    if (isNew && status !== null) await libvirt.undefineDomain(domain.id);
    throw failure;
  }
}

/** A QEMU that cannot do what it is told may end a moment after libvirt saw it start. */
async function watch(
  libvirt: DomainControl,
  { domain, isNew, options }: {
    readonly domain: OwnDomain;
    readonly isNew: boolean;
    readonly options: StartOptions;
  },
): Promise<DomainStatus> {
  const { watchMs = WATCH_MS, logDirectory = SYSTEM_LOG_DIRECTORY, signal } = options;
  const end = performance.now() + watchMs;
  for (;;) {
    const status = await domain.find(libvirt);
    if (status === null || status.shutOffReason === "crashed" || status.shutOffReason === "failed") {
      const failure = await diedAtOnce(domain.id, { status, directory: logDirectory });
      if (isNew && status !== null) await libvirt.undefineDomain(domain.id);
      throw failure;
    }
    // Powered off by itself or by somebody, which is no failure; or alive for long enough
    if (status.id === null || performance.now() >= end) return status;
    await delay(LOOK_PAUSE_MS, undefined, { signal }).catch(() => {});
    if (signal?.aborted === true) return status;
  }
}

async function diedAtOnce(
  id: string,
  { status, directory }: { readonly status: DomainStatus | null; readonly directory: string },
): Promise<ShimError> {
  const log = await readGuestLog(id, { directory });
  const words = log === "" ? "" : `: ${log.split("\n").at(-1)}`;
  const details: ErrorDetails = {
    id,
    reason: status?.shutOffReason ?? "undefined",
    ...(log === "" ? {} : { log }),
    remedy: `see "${directory}/${id}.log"`,
  };
  return new ShimError("DOMAIN_FAILED", `Cannot start domain "${id}": its QEMU ended at once${words}`, {
    details,
  });
}

type Loss = {
  readonly failure: ShimError;
  readonly isNew: boolean;
  readonly signal: AbortSignal | undefined;
};

/** What became of a start whose answer was lost. */
async function settle(domain: OwnDomain, { failure, isNew, signal }: Loss): Promise<DomainStatus> {
  const end = performance.now() + SETTLE_LIMIT_MS;
  while (performance.now() < end && signal?.aborted !== true) {
    try {
      return await domain.connect(async (libvirt) => {
        const status = await domain.find(libvirt);
        if (status !== null && status.id !== null) {
          // Paused: its QEMU is there, and libvirt still at work on it
          if (status.state !== "paused" || performance.now() >= end) return status;
          throw outcome(failure, null);
        }
        // A daemon that hung may yet carry the start out: only one that is new has surely forgotten it
        if (failure.code === "HYPERVISOR_UNAVAILABLE") {
          if (isNew && status !== null) await libvirt.undefineDomain(domain.id);
          throw outcome(failure, "not started");
        }
        throw outcome(failure, "unknown");
      });
    } catch (error) {
      if (error instanceof ShimError && error.details["outcome"] !== undefined) throw error;
      await delay(SETTLE_PAUSE_MS, undefined, { signal }).catch(() => {});
    }
  }
  throw outcome(failure, "unknown");
}

/** @param became null while it may yet become anything */
function outcome(failure: ShimError, became: "not started" | "unknown" | null): ShimError {
  return new ShimError(failure.code, failure.message, {
    cause: failure,
    details: { ...failure.details, ...(became === null ? {} : { outcome: became }) },
  });
}
