import type { Server } from "node:http";
import type { AgentContext } from "../agent/agent_context.ts";
import { cacheBytes } from "../agent/cache_bytes.ts";
import { collectCache } from "../agent/collect_cache.ts";
import { examineHost } from "../agent/doctor.ts";
import { loadSources } from "../agent/open_source.ts";
import { Turns } from "../agent/turns.ts";
import { holdBlobThread } from "../content/blob_thread.ts";
import { ShimError, toShimError } from "../errors.ts";
import { foreignCalls } from "../host/foreign_calls.ts";
import { openKernelLook } from "../host/kernel_look.ts";
import { mainLoop } from "../host/main_loop.ts";
import { LibvirtSession, type SessionNotice } from "../libvirt/libvirt_session.ts";
import { isMachineId } from "../machine/machine_id.ts";
import { type AccessRecord, makeApp } from "./app.ts";
import { EventLog } from "./event_log.ts";
import { type CallerRules, type HttpLimits, makeHttpServer } from "./http_server.ts";
import { keptLook } from "./kept_look.ts";
import { Metrics } from "./metrics.ts";
import { type OperationEnd, Operations } from "./operations.ts";
import type { Service } from "./service.ts";
import { tellCollected } from "./tell_cache.ts";
import { listen, listenOnSocket, type SocketPlace } from "./unix_socket.ts";

export type ServeSettings = {
  /** The socket to make, or the one that was handed to us. */
  readonly socket: SocketPlace | { readonly fd: number };
  readonly callers: CallerRules;
  /** Loopback TCP in addition. */
  readonly listen: { readonly host: string; readonly port: number } | null;
  readonly http: HttpLimits;
  readonly maxRunning: number;
  readonly maxPending: number;
  /** How often the cache is collected by itself; null: never. */
  readonly collectEveryMs: number | null;
  readonly version: string;
  readonly checkReference: (reference: string) => void;
};

/** What can change while it serves. */
export type Reloaded = {
  /** Over the same root, and at the same libvirt. */
  readonly context: AgentContext;
  readonly checkReference: (reference: string) => void;
};

export type ServeOptions = {
  readonly signal: AbortSignal;
  /** Told once, when it listens everywhere. */
  readonly onReady: () => void;
  /** Told once; `apply` has all that begins from then on use what it is given. */
  readonly onServing?: (apply: (next: Reloaded) => void) => void;
  readonly onAccess: (record: AccessRecord) => void;
};

/** How long requests under way may take to end once the service was asked to. */
const GRACE_MS = 8_000;
/** How long libvirt may take to let go of us. */
const LIBVIRT_GRACE_MS = 1_500;
/** Of the connections, this many may wait for what takes long; the others are for what is answered at once. */
const LASTING_SHARE = 3 / 4;
/** Verbs, releases and collections at work at once; each waits for libvirt or the disk. */
const MAX_ERRANDS = 16;
const MAX_ERRANDS_PER_MACHINE = 4;
const HOST_KEPT_MS = 5_000;
/** Every file of the cache is looked at for its size. */
const CACHE_BYTES_KEPT_MS = 60_000;
const DELAY_SAMPLE_MS = 100;

/**
 * Serves until the signal fires; then takes nothing new, stops transfers in such a way that they can be resumed, and
 * resolves when all is quiet, within ten seconds.
 *
 * @throws {ShimError} BUSY, CONFLICT, REQUEST_INVALID, IO_ERROR when it cannot listen
 */
export async function serve(
  given: AgentContext,
  settings: ServeSettings,
  { signal, onReady, onServing, onAccess }: ServeOptions,
): Promise<void> {
  const events = new EventLog();
  const session = LibvirtSession.start(given.libvirtUri, {
    onNotice: (notice) => tellDomain(notice, given, events),
  });
  let context: AgentContext = { ...given, libvirtSession: session };
  let { checkReference } = settings;
  const metrics = new Metrics();
  const operations = new Operations({ ...settings, events, onEnd: (end) => countOperation(metrics, end) });
  let isReady = true;
  const service: Service = {
    get context() {
      return context;
    },
    operations,
    errands: new Turns(MAX_ERRANDS, { perRow: MAX_ERRANDS_PER_MACHINE }),
    examineHost: keptLook(() => examineHost(context), HOST_KEPT_MS),
    events,
    metrics,
    version: settings.version,
    isReady: () => isReady,
    checkReference: (reference) => checkReference(reference),
  };
  describeService(service, session);
  const maxLasting = Math.max(1, Math.floor(settings.http.maxConnections * LASTING_SHARE));
  const app = makeApp(service, { maxLasting, onAccess });
  const servers: Server[] = [];
  let removeSocket = async () => {};
  await loadSources(given);
  mainLoop.serveOthers(await openKernelLook());
  const letBlobThreadGo = holdBlobThread();
  const timers: ReturnType<typeof setInterval>[] = [watchDelay(metrics)];
  try {
    const { socket, http: limits } = settings;
    const local = makeHttpServer(app, { rules: settings.callers, limits });
    servers.push(local);
    if ("fd" in socket) await listen(local, socket);
    else removeSocket = await listenOnSocket(local, socket);
    if (settings.listen) {
      const tcp = makeHttpServer(app, { rules: null, limits });
      servers.push(tcp);
      await listen(tcp, settings.listen).catch((error: unknown) => {
        throw new ShimError(
          "BUSY",
          `Cannot listen on ${settings.listen?.host}:${settings.listen?.port}: ${error}`,
          {
            cause: error,
          },
        );
      });
    }
    if (settings.collectEveryMs !== null) timers.push(collectNowAndThen(service, settings.collectEveryMs));
    onServing?.((next) => {
      context = { ...next.context, libvirtSession: session };
      checkReference = next.checkReference;
    });
    onReady();
    await aborted(signal);
  } finally {
    isReady = false;
    for (const timer of timers) clearInterval(timer);
    await removeSocket();
    await quiet(servers, operations);
    await withinTime(session.close(), LIBVIRT_GRACE_MS);
    letBlobThreadGo();
  }
}

function countOperation(metrics: Metrics, { state, code, workedSeconds }: OperationEnd): void {
  const outcome = { kind: "prepare", state };
  const labels = { ...outcome, code: code ?? "" };
  metrics.add("bootshim_operations_total", "Operations that ended, by how", labels);
  if (workedSeconds === undefined) return;
  metrics.observe("bootshim_operation_seconds", "Time that operations worked", outcome, workedSeconds);
}

/** What hangs is left: the process ends, and it with it. */
async function withinTime(ended: Promise<void>, limitMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, limitMs));
  await Promise.race([ended, late]);
  clearTimeout(timer);
}

/** What libvirt says of our machines; domains of others are none of our callers' business. */
function tellDomain(notice: SessionNotice, context: AgentContext, events: EventLog): void {
  if (notice.kind !== "event") return events.publish(`libvirt.${notice.kind}`, {});
  const { name, uuid, event } = notice.event;
  if (!isMachineId(name)) return;
  void context.machines.read(name).then((record) => {
    if (record.uuid === uuid) events.publish(`machine.${event}`, { machine: name });
  }, () => {
    // No machine of ours by that name.
  });
}

async function quiet(servers: readonly Server[], operations: Operations): Promise<void> {
  const closed = servers.map((server) =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeIdleConnections();
    })
  );
  const deadline = setTimeout(() => {
    for (const server of servers) server.closeAllConnections();
  }, GRACE_MS);
  await operations.close(GRACE_MS);
  // Whoever waits for an answer has it now; who only listens to events would stay for ever.
  setTimeout(() => {
    for (const server of servers) server.closeAllConnections();
  }, 250);
  await Promise.all(closed);
  clearTimeout(deadline);
}

function describeService(service: Service, session: LibvirtSession): void {
  const { metrics, operations } = service;
  metrics.onLook(() => {
    const { running, pending } = operations.counts();
    metrics.set("bootshim_operations", "Operations by state", running, { state: "running" });
    metrics.set("bootshim_operations", "Operations by state", pending, { state: "pending" });
    const { made, slow } = foreignCalls();
    metrics.setTotal("bootshim_foreign_calls_total", "Calls into C on the main thread", made);
    metrics.setTotal("bootshim_slow_foreign_calls_total", "Those that took more than 5 ms", slow);
    metrics.set("bootshim_resident_bytes", "Memory of the process", process.memoryUsage.rss());
  });
  const measureCache = keptLook(() => cacheBytes(service.context), CACHE_BYTES_KEPT_MS);
  metrics.onLook(async () => {
    metrics.set("bootshim_cache_bytes", "What the cached images take on disk", await measureCache());
  });
  metrics.onLook(async () => {
    metrics.set(
      "bootshim_images",
      "Images in the cache",
      (await service.context.content.references()).length,
    );
  });
  metrics.onLook(async () => {
    metrics.set(
      "bootshim_machines",
      "Prepared machines",
      (await service.context.machines.list()).machines.length,
    );
  });
  metrics.onLook(() =>
    metrics.set("bootshim_libvirt_connected", "Whether libvirt answers", session.isConnected ? 1 : 0)
  );
}

/** How late timers come says how long the main loop was busy with something else. */
function watchDelay(metrics: Metrics): ReturnType<typeof setInterval> {
  let expectedMs = performance.now() + DELAY_SAMPLE_MS;
  const timer = setInterval(() => {
    const lateMs = Math.max(0, performance.now() - expectedMs);
    expectedMs = performance.now() + DELAY_SAMPLE_MS;
    metrics.observe("bootshim_event_loop_delay_seconds", "How late the main loop was", {}, lateMs / 1000);
  }, DELAY_SAMPLE_MS);
  timer.unref();
  return timer;
}

function collectNowAndThen(service: Service, everyMs: number): ReturnType<typeof setInterval> {
  const timer = setInterval(() => {
    const { context, errands, events } = service;
    void errands.take(() => collectCache(context, { isDryRun: false }), { row: "gc" }).then(
      (collected) => tellCollected(events, collected),
      (error: unknown) => context.note(`the cache was not collected: ${toShimError(error).message}`),
    );
  }, everyMs);
  timer.unref();
  return timer;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
